package logpump

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pieceSize is the most data of one record; longer lines come in P pieces.
	pieceSize = 16 << 10
	flushSize = 32 << 10
	// recordHead is more than time, stream and tag of a record take.
	recordHead = 64

	stampLayout  = "2006-01-02T15:04:05.999999999Z07:00"
	markerStream = Stderr
)

// recordWriter writes one chunk of one stream as CRI log records at a known
// offset. After a failed write the rest of the chunk is dropped and counted.
type recordWriter struct {
	sink   Sink
	off    int64
	stream int
	stamp  time.Time
	state  gauges

	*records
	failed bool
}

// records are what is not written yet. They are for one write after the other: a chunk needs no memory of its own.
type records struct {
	buf    []byte
	marks  []mark // the records in buf
	prefix []byte // of every record: the time
}

var spare = sync.Pool{New: func() any { return &records{buf: make([]byte, 0, flushSize+pieceSize+recordHead)} }}

// mark is one record in the buffer.
type mark struct {
	end    int    // of the record in buf
	data   uint64 // bytes of the container's
	stream int
	tag    byte
	clears bool // the record is the marker of all losses before it
}

// write returns the log's new end and the state after it.
func (w *recordWriter) write(data []byte) (int64, gauges) {
	w.records, _ = spare.Get().(*records)
	defer func() {
		spare.Put(w.records)
		w.records = nil
	}()
	w.prefix = append(w.stamp.UTC().AppendFormat(w.prefix[:0], stampLayout), ' ')
	if w.state.lostRecords > 0 {
		w.addMarker()
	}
	for len(data) > 0 {
		n, tag := min(len(data), pieceSize), byte('P')
		piece := data[:n]
		if i := bytes.IndexByte(piece, '\n'); i >= 0 {
			piece, n, tag = piece[:i], i+1, 'F'
		}
		w.add(mark{data: uint64(n), stream: w.stream, tag: tag}, piece)
		data = data[n:]
	}
	w.flush()
	return w.off, w.state
}

// addMarker writes at the place of a gap how much is missing. The marker is a line of standard error; an unfinished
// line there is ended first.
func (w *recordWriter) addMarker() {
	if w.state.partial&(1<<markerStream) != 0 {
		w.add(mark{stream: markerStream, tag: 'F'}, nil)
	}
	text := fmt.Sprintf("[pinder: %d bytes in %d records could not be logged here: %s]",
		w.state.lostBytes, w.state.lostRecords, unix.Errno(w.state.lostErrno).Error())
	w.add(mark{stream: markerStream, tag: 'F', clears: true}, []byte(text))
}

func (w *recordWriter) add(m mark, piece []byte) {
	if w.failed {
		w.lose(m)
		return
	}
	w.buf = append(w.buf, w.prefix...)
	w.buf = append(w.buf, streamNames[m.stream]...)
	w.buf = append(w.buf, ' ', m.tag, ' ')
	w.buf = append(w.buf, piece...)
	w.buf = append(w.buf, '\n')
	m.end = len(w.buf)
	w.marks = append(w.marks, m)
	if len(w.buf) >= flushSize {
		w.flush()
	}
}

func (w *recordWriter) lose(m mark) {
	if m.data > 0 {
		if w.state.lostRecords == 0 {
			totals.gaps.Add(1)
		}
		totals.lost.Add(m.data)
		w.state.lostBytes += m.data
		w.state.lostRecords++
	}
}

func (w *recordWriter) flush() {
	n, err := w.sink.WriteAt(w.buf, w.off)
	whole := 0 // bytes of whole records
	for _, m := range w.marks {
		if m.end > n {
			w.lose(m)
			continue
		}
		whole = m.end
		totals.bytes.Add(m.data)
		w.state.partial &^= 1 << m.stream
		if m.tag == 'P' {
			w.state.partial |= 1 << m.stream
		}
		if m.clears {
			w.state.lostBytes, w.state.lostRecords = 0, 0
		}
	}
	w.off += int64(whole)
	if err != nil {
		w.failed = true
		reason := unix.EIO
		_ = errors.As(err, &reason)
		w.state.lostErrno = uint64(reason)
		// The log must not end with a part of a record, nor with a longer copy from an interrupted first write.
		_ = w.sink.Truncate(w.off)
	}
	w.buf, w.marks = w.buf[:0], w.marks[:0]
}
