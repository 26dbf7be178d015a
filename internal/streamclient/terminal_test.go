package streamclient

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty is a new terminal, and the end at which a user would sit.
func pty(t *testing.T) (user, terminal *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { user.Close() })
	var number int
	err = control(user, func(fd int) (err error) {
		if number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); err != nil {
			return err
		}
		return unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { terminal.Close() })
	return user, terminal
}

func settings(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	got, err := termios(f)
	if err != nil {
		t.Fatal(err)
	}
	return *got
}

func TestARawTerminalIsRestoredAlsoAfterAPanic(t *testing.T) {
	_, f := pty(t)
	before := settings(t, f)
	func() {
		defer func() { _ = recover() }()
		raw, err := RawTerminal(f)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = raw.Restore() }()
		if now := settings(t, f); now.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 || now.Oflag&unix.OPOST != 0 {
			t.Errorf("not raw: %+v", now)
		}
		panic("on purpose")
	}()
	if now := settings(t, f); now != before {
		t.Errorf("%+v, want %+v", now, before)
	}
}

func TestAWindowsSizeIsFollowed(t *testing.T) {
	_, f := pty(t)
	resize := func(rows, columns uint16) {
		t.Helper()
		err := control(f, func(fd int) error {
			return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(sizes <-chan Size, want Size) {
		t.Helper()
		select {
		case got := <-sizes:
			if got != want {
				t.Errorf("size %+v, want %+v", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("no size, want %+v", want)
		}
	}
	resize(24, 80)
	raw, err := RawTerminal(f)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Restore() }()
	expect(raw.Sizes, Size{80, 24})
	resize(50, 132)
	// The signal of a terminal comes to those who have it as their own.
	if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	expect(raw.Sizes, Size{132, 50})
}

func TestAFileIsNoTerminal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if IsTerminal(f) {
		t.Error("a file is a terminal")
	}
	if _, err := RawTerminal(f); err == nil {
		t.Error("a file becomes raw")
	}
	if _, terminal := pty(t); !IsTerminal(terminal) {
		t.Error("a terminal is none")
	}
}
