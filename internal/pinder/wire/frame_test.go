package wire

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := [2]*Conn{}
	for i, fd := range fds {
		if conns[i], err = NewConn(fd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conns[i].Close() })
	}
	return conns[0], conns[1]
}

func TestMessagesArriveWholeAndInOrderWithTheirDescriptors(t *testing.T) {
	a, b := pair(t)
	p := [2]int{}
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(p[0]) }()
	big := strings.Repeat("x", 1<<20)
	done := make(chan error, 1)
	go func() {
		defer func() { _ = unix.Close(p[1]) }()
		for i, text := range []string{"small", big, "after"} {
			m, err := New(uint64(i+1), TypePing, text)
			if err == nil && i > 0 {
				m.FDs = []int{p[1]}
			}
			if err == nil {
				err = a.Write(m)
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for i, want := range []string{"small", big, "after"} {
		m, err := b.Read()
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := m.Decode(&got); err != nil || got != want || m.ID != uint64(i+1) {
			t.Fatalf("message %d: id %d, %d bytes, %v", i, m.ID, len(got), err)
		}
		if want := min(i, 1); len(m.FDs) != want {
			t.Fatalf("message %d: %d descriptors, want %d", i, len(m.FDs), want)
		}
		for _, fd := range m.FDs {
			if _, err := unix.Write(fd, []byte{1}); err != nil {
				t.Fatalf("descriptor does not work: %v", err)
			}
			_ = unix.Close(fd)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestConnectionEndIsEOFBetweenMessagesAndAnErrorInside(t *testing.T) {
	a, b := pair(t)
	_ = a.Close()
	if _, err := b.Read(); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v, want EOF", err)
	}
	a, b = pair(t)
	if _, err := a.socket.Send([]byte("PF\x00\x00\x00"), nil, true); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	if _, err := b.Read(); !errors.Is(err, ErrFrame) {
		t.Fatalf("got %v, want ErrFrame", err)
	}
}

func TestHostileFramesAreErrors(t *testing.T) {
	for name, in := range map[string]string{
		"no magic":             "HTTP/1.1 200",
		"too long":             "PF\x00\x00\xff\xff\xff\xff",
		"too many descriptors": "PF\xff\xff\x00\x00\x00\x02{}",
		"missing descriptors":  "PF\x00\x01\x00\x00\x00\x02{}",
		"no JSON":              "PF\x00\x00\x00\x00\x00\x01{",
	} {
		var d Decoder
		d.Feed([]byte(in), nil, false)
		if _, ok, err := d.Next(); ok || !errors.Is(err, ErrFrame) {
			t.Errorf("%s: got %v, %v", name, ok, err)
		}
	}
}

func TestADescriptorThatIsMissingSpoilsItsOwnMessageAlone(t *testing.T) {
	frame := func(id uint64, count int) []byte {
		b, err := Encode(Message{ID: id, Type: TypeKeep, FDs: make([]int, count)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var d Decoder
	d.Feed(frame(1, 2), []int{10}, true)
	d.Feed(frame(2, 1), []int{20}, false)
	d.Feed(frame(3, 1), nil, true)
	d.Feed(frame(4, 0), nil, false)
	for _, want := range []struct {
		id  uint64
		fds []int
	}{{1, []int{10}}, {2, []int{20}}, {3, nil}, {4, nil}} {
		m, ok, err := d.Next()
		if err != nil || !ok || m.ID != want.id || !slices.Equal(m.FDs, want.fds) {
			t.Fatalf("message %d: %+v, %v, %v", want.id, m, ok, err)
		}
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	body := `{"id":7,"type":"create","later":true,"body":{"id":"a","later":[1]}}`
	var m Message
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatal(err)
	}
	var c Create
	if err := m.Decode(&c); err != nil || c.ID != "a" {
		t.Fatalf("got %+v, %v", c, err)
	}
}

func FuzzFrame(f *testing.F) {
	good, err := Encode(Message{ID: 1, Type: TypeCreate, Body: json.RawMessage(`{"id":"x"}`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, 3)
	f.Add(good[:5], 1)
	f.Add([]byte("PF\x00\x01\x00\x00\x00\x02{}"), 2)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		var d Decoder
		if cut < 0 || cut > len(in) {
			cut = len(in) / 2
		}
		for _, part := range [][]byte{in[:cut], in[cut:]} {
			d.Feed(part, nil, false)
			for {
				m, ok, err := d.Next()
				if err != nil {
					return
				}
				if !ok {
					break
				}
				var c Create
				_ = m.Decode(&c)
				if _, err := Encode(m); err != nil && !errors.Is(err, ErrFrame) {
					t.Fatalf("a decoded message does not encode: %v", err)
				}
			}
		}
	})
}
