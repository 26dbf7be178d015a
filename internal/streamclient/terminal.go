package streamclient

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// Terminal is the user's terminal while a session has it.
type Terminal struct {
	// Sizes gives its size now, and after each change.
	Sizes <-chan Size

	file  *os.File
	saved unix.Termios
	once  sync.Once
	stop  chan struct{}
	err   error
}

// IsTerminal reports whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := termios(f)
	return err == nil
}

// RawTerminal passes all keys on to the session, also those that make signals. The caller must defer Restore at once, so
// that it is done also after a panic, and must not end the process otherwise, also not by a signal.
func RawTerminal(f *os.File) (*Terminal, error) {
	saved, err := termios(f)
	if err != nil {
		return nil, fmt.Errorf("%s is no terminal: %w", f.Name(), err)
	}
	sizes := make(chan Size)
	t := &Terminal{Sizes: sizes, file: f, saved: *saved, stop: make(chan struct{})}
	// As cfmakeraw(3).
	raw := *saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag &^= unix.CSIZE | unix.PARENB
	raw.Cflag |= unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := setTermios(f, &raw); err != nil {
		return nil, fmt.Errorf("make %s raw: %w", f.Name(), err)
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	changed <- unix.SIGWINCH // the size now
	go t.follow(changed, sizes)
	return t, nil
}

// Restore gives the terminal its settings back. It may be called more than once.
func (t *Terminal) Restore() error {
	t.once.Do(func() {
		close(t.stop)
		if err := setTermios(t.file, &t.saved); err != nil {
			t.err = fmt.Errorf("restore the terminal %s: %w", t.file.Name(), err)
		}
	})
	return t.err
}

func (t *Terminal) follow(changed chan os.Signal, sizes chan<- Size) {
	defer signal.Stop(changed)
	for {
		select {
		case <-changed:
		case <-t.stop:
			return
		}
		size, err := t.size()
		if err != nil {
			continue
		}
		select {
		case sizes <- size:
		case <-t.stop:
			return
		}
	}
}

func (t *Terminal) size() (size Size, err error) {
	err = control(t.file, func(fd int) error {
		got, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			size = Size{Width: got.Col, Height: got.Row}
		}
		return err
	})
	return size, err
}

func termios(f *os.File) (got *unix.Termios, err error) {
	err = control(f, func(fd int) (err error) {
		got, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	return got, err
}

func setTermios(f *os.File, to *unix.Termios) error {
	return control(f, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, to) })
}

// control calls do with the file's descriptor, and leaves the file as it is (os.File.Fd makes it blocking).
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}
