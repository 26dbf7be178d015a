package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// maxLine is how much of a line without an end is kept until the rest comes, in bytes. Pinder's
// records are far shorter.
const maxLine = 1 << 20

// logReader reads CRI's log format, "TIME STREAM TAG CONTENT". The tag P means that the line
// continues in the next record.
type logReader struct {
	path    string
	file    *os.File
	r       *bufio.Reader
	rest    string
	options *logOptions
	// kept are the last lines until the end of the log is reached for the first time.
	kept    []logLine
	caught  bool
	partial [2]bool // of each stream: the last record printed was a part of a line
}

// logLine is one record: which stream, and the text to print.
type logLine struct {
	isError bool
	text    string
	ends    bool
}

func openLog(path string, o *logOptions) (*logReader, error) {
	if path == "" {
		return nil, errors.New("the container has no log")
	}
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	return &logReader{path: path, file: f, r: bufio.NewReaderSize(f, 64<<10), options: o}, nil
}

func openRegular(path string) (*os.File, error) {
	// The client that made the pod chose the path. To open a FIFO there would block for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, errors.Join(fmt.Errorf("the log %s is not a regular file", path), err)
	}
	return f, nil
}

func (l *logReader) close() { _ = l.file.Close() }

// print writes the records that are complete by now, each to its stream.
func (l *logReader) print(t *tool) error {
	for {
		if err := l.printFile(t); err != nil {
			return err
		}
		next, err := l.rotated()
		if err != nil {
			return err
		}
		if next == nil {
			break
		}
		// What was written to the old file between its end and the look at the new one.
		if err := l.printFile(t); err != nil {
			_ = next.Close()
			return err
		}
		_ = l.file.Close()
		l.file, l.rest = next, ""
		l.r.Reset(next)
	}
	if l.caught {
		return nil
	}
	l.caught = true
	for _, line := range l.kept {
		if err := l.write(t, line); err != nil {
			return err
		}
	}
	l.kept = nil
	return nil
}

// rotated opens the file that is at the path now, if it is another one.
func (l *logReader) rotated() (*os.File, error) {
	now, err := os.Lstat(l.path)
	if err != nil {
		return nil, nil // renamed, and the new one is not there yet; or removed with the container
	}
	was, err := l.file.Stat()
	if err != nil || os.SameFile(now, was) {
		return nil, err
	}
	return openRegular(l.path)
}

func (l *logReader) printFile(t *tool) error {
	for {
		text, err := l.r.ReadString('\n')
		l.rest += text
		if errors.Is(err, io.EOF) {
			if len(l.rest) > maxLine {
				return fmt.Errorf("the log %s has a record of more than %d bytes", l.path, maxLine)
			}
			return nil
		}
		if err != nil {
			return err
		}
		text, l.rest = l.rest, ""
		line, ok := l.parse(strings.TrimSuffix(text, "\n"))
		if !ok {
			continue
		}
		if err := l.take(t, line); err != nil {
			return err
		}
	}
}

// parse reads one record. It leaves out those that are too old.
func (l *logReader) parse(record string) (logLine, bool) {
	fields := strings.SplitN(record, " ", 4)
	if len(fields) < 4 {
		return logLine{}, false
	}
	if !l.options.since.IsZero() {
		if at, err := time.Parse(time.RFC3339Nano, fields[0]); err == nil && at.Before(l.options.since.Time) {
			return logLine{}, false
		}
	}
	line := logLine{isError: fields[1] == "stderr", text: fields[3], ends: !strings.HasPrefix(fields[2], "P")}
	stream := 0
	if line.isError {
		stream = 1
	}
	if l.options.timestamps && !l.partial[stream] {
		line.text = fields[0] + " " + line.text
	}
	l.partial[stream] = !line.ends
	return line, true
}

// take prints a line, or keeps it while the end of the log is not reached.
func (l *logReader) take(t *tool, line logLine) error {
	most := int(l.options.tail)
	if l.caught || most < 0 {
		return l.write(t, line)
	}
	if most == 0 {
		return nil
	}
	// A part of a line is joined to the part before, so that lines are counted.
	if i := len(l.kept) - 1; i >= 0 && !l.kept[i].ends && l.kept[i].isError == line.isError && len(l.kept[i].text) < maxLine {
		l.kept[i].text += line.text
		l.kept[i].ends = line.ends
		return nil
	}
	if len(l.kept) == most {
		l.kept = l.kept[1:]
	}
	l.kept = append(l.kept, line)
	return nil
}

func (l *logReader) write(t *tool, line logLine) error {
	w := t.out
	if line.isError {
		w = t.errs
	}
	end := ""
	if line.ends {
		end = "\n"
	}
	_, err := io.WriteString(w, line.text+end)
	return err
}
