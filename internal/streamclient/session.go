package streamclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// commandProtocol is the version that can end the standard input.
const commandProtocol = "v5.channel.k8s.io"

// Streams are the user's ends of a session. They have to be those that the call has asked for.
type Streams struct {
	// In is sent to its end, which ends the command's standard input. A read of it may still be in progress when the
	// session has ended, and a write of the others when the context has.
	In io.Reader
	// Out and Err get the output. Out gets all that a terminal shows.
	Out, Err io.Writer
	// Begun is called when the command has started, or when no more output of the container is missed. May be nil.
	Begun func()
	// Sizes gives the sizes of the user's terminal; nil without one.
	Sizes <-chan Size
}

// Size is a terminal's size in character cells.
type Size struct{ Width, Height uint16 }

var (
	// ErrEarly says that the session ended before the server had said how. What ran in the container may go on.
	ErrEarly = errors.New("the session ended early")
	errDone  = errors.New("the session has a result")
)

// Exec runs the session of a command, at the URL that CRI's Exec returned. It returns the command's exit code. An error
// says that the code is not known.
func Exec(ctx context.Context, url string, s Streams) (code int, err error) {
	result, err := run(ctx, url, s)
	if err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	return result.code()
}

// Attach runs a session with a container's own streams, at the URL that CRI's Attach returned. It returns when the
// container has ended.
func Attach(ctx context.Context, url string, s Streams) error {
	result, err := run(ctx, url, s)
	if err == nil {
		_, err = result.code()
	}
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

func run(ctx context.Context, url string, s Streams) (*status, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := open(ctx, url, commandProtocol)
	if err != nil {
		return nil, err
	}
	defer c.close()
	failed := make(chan error, 2)
	if s.In != nil {
		go guarded(failed, func() error { return c.feed(s.In) })
	}
	if s.Sizes != nil {
		go guarded(failed, func() error { return c.resize(ctx, s.Sizes) })
	}
	result := &status{}
	received := make(chan error, 1)
	go guarded(received, func() error {
		return c.receive(map[byte]io.Writer{channelOut: writer(s.Out), channelErr: writer(s.Err), channelStatus: result}, s.Begun)
	})
	select {
	case err = <-received:
	case err = <-failed:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	switch {
	case errors.Is(err, errDone):
		return result, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, errEnded):
		return nil, fmt.Errorf("%w: %w", ErrEarly, err)
	}
	return nil, err
}

// guarded makes an error of a panic, so that the caller can put its terminal in order.
func guarded(failed chan<- error, f func() error) {
	defer func() {
		if p := recover(); p != nil {
			failed <- fmt.Errorf("internal error: %v", p)
		}
	}()
	if err := f(); err != nil {
		failed <- err
	}
}

func writer(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// feed sends the input. If the connection ends, what is received says why. An input that cannot be read is an error: it
// is not the end of the input.
func (c *connection) feed(from io.Reader) error {
	buf := make([]byte, maxPiece)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := (input{c, channelIn}).Write(buf[:n]); err != nil {
				return nil
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = c.send(channelEnd, []byte{channelIn})
			return nil
		case err != nil:
			return fmt.Errorf("read the standard input: %w", err)
		}
	}
}

func (c *connection) resize(ctx context.Context, sizes <-chan Size) error {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return nil
			}
			text, err := json.Marshal(size)
			if err != nil || c.send(channelResize, text) != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// status is how a session ended, in the words of Kubernetes' metav1.Status.
type status struct {
	text []byte

	Status  string
	Message string
	Reason  string
	Details struct {
		Causes []struct{ Reason, Message string }
	}
}

// Write implements io.Writer. It returns errDone when the status is complete.
func (s *status) Write(p []byte) (int, error) {
	if len(s.text)+len(p) > maxStatus {
		return 0, fmt.Errorf("the server says more than %d bytes about the end of the session", maxStatus)
	}
	s.text = append(s.text, p...)
	if !bytes.HasSuffix(bytes.TrimSpace(p), []byte("}")) || !json.Valid(s.text) {
		return len(p), nil // the rest is to come
	}
	if err := json.Unmarshal(s.text, s); err != nil {
		return 0, fmt.Errorf("what the server says about the end of the session is no status: %w", err)
	}
	return len(p), errDone
}

// code is the exit code, or why there is none.
func (s *status) code() (int, error) {
	switch {
	case s.Status == "Success":
		return 0, nil
	case s.Reason == "NonZeroExitCode":
		for _, cause := range s.Details.Causes {
			if cause.Reason != "ExitCode" {
				continue
			}
			if code, err := strconv.Atoi(cause.Message); err == nil && code > 0 && code <= 255 {
				return code, nil
			}
		}
		return 0, errors.New("the server says that the command failed, but not with which exit code")
	case s.Message == "":
		return 0, errors.New("the server says that the session failed, but not why")
	}
	return 0, errors.New(printable(s.Message))
}

// printable replaces what would change a terminal.
func printable(text string) string {
	clean := []rune(text)
	for i, r := range clean {
		if r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			clean[i] = '?'
		}
	}
	return string(clean)
}
