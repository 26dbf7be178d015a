package stats

import (
	"errors"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Detail says what is read of a group beside CPU time, memory and pressure. Each file costs some ten microseconds, and a
// node has hundreds of groups.
type Detail uint8

const (
	// SwapSpace is Usage.Swap.
	SwapSpace Detail = 1 << iota
	// Processes is Tasks.Processes.
	Processes
	// Rest is all that package stats knows of.
	Rest
	// Everything is every field of Usage.
	Everything = SwapSpace | Processes | Rest
)

// look is one reading of a group, by one goroutine.
type look struct {
	Group
	reader *Reader
	detail Detail
	// buf holds the file that was read last.
	buf []byte
	// dirs are the directories of which several files are read. Otherwise the kernel walks the whole path for each file,
	// which takes longer than to open it.
	dirs []openDirectory
}

type openDirectory struct {
	path string
	fd   int
}

// buffers are those of looks that have ended.
var buffers = sync.Pool{New: func() any {
	buf := make([]byte, firstBuffer)
	return &buf
}}

const (
	// firstBuffer holds every file that a group usually has, memory.stat is the longest.
	firstBuffer = 16 << 10
	// keptBuffer is the longest that is kept for the next look.
	keptBuffer = 64 << 10
)

// look begins a reading. The caller ends it.
func (r *Reader) look(g Group, d Detail) *look {
	l := &look{Group: g, reader: r, detail: d, buf: *buffers.Get().(*[]byte)}
	l.keep(g.v1["memory"])
	if r.pressure || len(g.v1) == 0 {
		l.keep(g.unified)
	}
	return l
}

// wants reports whether any of what d names is to be read.
func (l *look) wants(d Detail) bool { return l.detail&d != 0 }

func (l *look) keep(dir string) {
	if dir == "" {
		return
	}
	if fd, err := open(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY); err == nil {
		l.dirs = append(l.dirs, openDirectory{dir, fd})
	}
}

func (l *look) end() {
	for _, d := range l.dirs {
		_ = unix.Close(d.fd)
	}
	if buf := l.buf; len(buf) <= keptBuffer {
		buffers.Put(&buf)
	}
	l.dirs, l.buf = nil, nil
}

// place is how the kernel is told of a file of a directory.
func (l *look) place(dir, name string) (at int, path string) {
	for _, d := range l.dirs {
		if d.path == dir {
			return d.fd, name
		}
	}
	return unix.AT_FDCWD, filepath.Join(dir, name)
}

// read returns a file's content, which is valid until the next read; false if there is none. The error is ENODEV if the
// group was removed meanwhile, and EOPNOTSUPP if a resource is switched off. In both cases there is no content.
func (l *look) read(dir, name string) ([]byte, bool) {
	if dir == "" {
		return nil, false
	}
	at, path := l.place(dir, name)
	return l.readAt(at, path)
}

func (l *look) readAt(at int, path string) ([]byte, bool) {
	// No os.File: the Go runtime would look whether it can poll the file, which takes four more system calls.
	fd, err := open(at, path, unix.O_RDONLY)
	if err != nil {
		return nil, false
	}
	defer func() { _ = unix.Close(fd) }()
	for n := 0; ; {
		if n == len(l.buf) {
			if n >= maxFile {
				return l.buf[:n], true
			}
			l.buf = append(l.buf, make([]byte, max(n, firstBuffer))...)
		}
		m, err := unix.Read(fd, l.buf[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, false
		}
		n += m
		// A file of the kernel's (seq_file) fills a page before it returns, if there is more.
		if half := unix.Getpagesize() / 2; m == 0 || m < half && n < len(l.buf) {
			return l.buf[:n], true
		}
	}
}

func open(at int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(at, path, flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// number reads a file with one number. It is nil if the file is missing, and for "max" or a negative number: no limit.
func (l *look) number(dir, name string) *uint64 {
	data, ok := l.read(dir, name)
	if !ok {
		return nil
	}
	return parseNumber(string(data))
}

// unlimited and above is what cgroup v1 shows for "no limit": the greatest multiple of the page size, which depends on the
// architecture.
const unlimited = 1 << 62

// limit is number, and nil also for unlimited.
func (l *look) limit(dir, name string) *uint64 {
	n := l.number(dir, name)
	if n == nil || *n >= unlimited {
		return nil
	}
	return n
}

// keys reads a flat keyed file, empty if there is none. It is valid until the next read.
func (l *look) keys(dir, name string) keys {
	data, _ := l.read(dir, name)
	return data
}

// pressureOf reads stall information. Only the unified hierarchy has it, also beside version 1.
func (l *look) pressureOf(resource string) *Pressure {
	if !l.reader.pressure {
		return nil
	}
	data, ok := l.read(l.unified, resource+".pressure")
	if !ok {
		return nil
	}
	return parsePressure(data)
}
