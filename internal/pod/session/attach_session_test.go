package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// attachments answers each request to attach with the next of its answers. They stand for one pinder after the other.
type attachments struct {
	Pinder
	mu      sync.Mutex
	asked   []wire.Attach
	answers []func() (*client.Attachment, error)
}

func (a *attachments) Attach(_ context.Context, r wire.Attach) (*client.Attachment, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r)
	if len(a.answers) == 0 {
		return nil, errdefs.ErrNotFound // pinder knows the container no more
	}
	next := a.answers[0]
	a.answers = a.answers[1:]
	return next()
}

func (*attachments) Resize(context.Context, string, string, uint16, uint16) error { return nil }

// outputs is an answer with output that ends after these texts.
func outputs(t *testing.T, out, errs string) func() (*client.Attachment, error) {
	return func() (*client.Attachment, error) {
		a := &client.Attachment{}
		for to, text := range map[**os.File]string{&a.Stdout: out, &a.Stderr: errs} {
			read, write := pipe(t)
			_, _ = write.WriteString(text)
			_ = write.Close()
			*to = read
		}
		return a, nil
	}
}

// refuses is an answer that is an error.
func refuses(err error) func() (*client.Attachment, error) {
	return func() (*client.Attachment, error) { return nil, err }
}

// attachedTo is a node with these answers of pinder, and its container.
func attachedTo(t *testing.T, answers ...func() (*client.Attachment, error)) (*Sessions, *attachments, *pod.Container) {
	t.Helper()
	a := &attachments{answers: answers}
	s, rec, _ := node(t, a)
	c, err := s.Book.Container(rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	return s, a, c
}

func TestAnAttachmentLastsUntilTheContainerEnds(t *testing.T) {
	s, a, c := attachedTo(t, outputs(t, "out", "err"))
	var out, errs bytes.Buffer
	ended := make(chan error, 1)
	go func() { ended <- s.Attach(t.Context(), "c", Streams{Out: &out, Err: &errs}) }()
	select {
	case err := <-ended:
		t.Fatalf("it ended before the container: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(c.Ended)
	if err := <-ended; err != nil || out.String() != "out" || errs.String() != "err" {
		t.Errorf("%q, %q: %v", &out, &errs, err)
	}
	if first := a.asked[0]; first.ID != "c" || first.AttachID == "" || first.Stdin || !first.Stdout || !first.Stderr {
		t.Errorf("pinder was asked for %+v", first)
	}
}

func TestAnAttachmentGoesOnWithTheNextPinder(t *testing.T) {
	s, a, c := attachedTo(t, outputs(t, "one ", ""), outputs(t, "two ", ""), outputs(t, "three", ""))
	close(c.Ended)
	var out bytes.Buffer
	if err := s.Attach(t.Context(), "c", Streams{In: strings.NewReader("x"), Out: &out}); err != nil || out.String() != "one two three" {
		t.Errorf("%q: %v", &out, err)
	}
	for i, r := range a.asked {
		// It is one session, so that pinder can refuse one that it has cut off; its input was given out once.
		if r.AttachID != a.asked[0].AttachID || r.Stdin != (i == 0) {
			t.Errorf("request %d is %+v", i, r)
		}
	}
}

func TestWhyAnAttachmentEndsWithAnError(t *testing.T) {
	for name, c := range map[string]struct {
		answers []func() (*client.Attachment, error)
		class   func(error) bool
	}{
		"pinder refuses":           {[]func() (*client.Attachment, error){refuses(errdefs.ErrUnavailable)}, errdefs.IsUnavailable},
		"pinder has cut it off":    {[]func() (*client.Attachment, error){outputs(t, "x", ""), refuses(context.DeadlineExceeded)}, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		"the next pinder has none": {[]func() (*client.Attachment, error){outputs(t, "x", ""), refuses(errdefs.ErrInternal)}, errdefs.IsInternal},
	} {
		s, _, container := attachedTo(t, c.answers...)
		close(container.Ended)
		err := s.Attach(t.Context(), "c", Streams{Out: io.Discard})
		if !c.class(err) || !strings.Contains(err.Error(), "attach to container c") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnAttachmentEndsWhenTheClientIsGone(t *testing.T) {
	never, keep := pipe(t)
	defer keep.Close()
	for name, answers := range map[string][]func() (*client.Attachment, error){
		"while output comes":              {func() (*client.Attachment, error) { return &client.Attachment{Stdout: never}, nil }},
		"while the container is to end":   {outputs(t, "x", "")},
		"and pinder says there is no end": {outputs(t, "x", ""), func() (*client.Attachment, error) { return &client.Attachment{}, nil }},
	} {
		s, _, _ := attachedTo(t, answers...)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*time.Millisecond, cancel)
		err := s.Attach(ctx, "c", Streams{Out: io.Discard})
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the client is gone") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAClientOfTheInputAloneIsDoneWhenItsInputIs(t *testing.T) {
	read, write := pipe(t)
	var stdout *os.File
	s, _, _ := attachedTo(t, func() (*client.Attachment, error) {
		stdout, _ = pipe(t)
		return &client.Attachment{Stdin: write, Stdout: stdout}, nil
	})
	if err := s.Attach(t.Context(), "c", Streams{In: strings.NewReader("hello")}); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(read); err != nil || string(said) != "hello" {
		t.Errorf("the container got %q: %v", said, err)
	}
	if _, err := stdout.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("output that is not wanted is still open: %v", err)
	}
}

func TestWhoCanBeAttachedTo(t *testing.T) {
	for state, class := range map[pod.State]func(error) bool{
		pod.Creating: errdefs.IsFailedPrecondition,
		pod.Created:  nil,
		pod.Running:  nil,
		pod.Exited:   errdefs.IsFailedPrecondition,
		pod.Removing: errdefs.IsFailedPrecondition,
	} {
		s, rec, _ := node(t, &attachments{})
		rec.State = state
		err := s.CheckAttach("c")
		if class == nil && err != nil || class != nil && !class(err) {
			t.Errorf("%s: %v", state, err)
		}
		if class != nil && !class(s.Attach(t.Context(), "c", Streams{})) {
			t.Errorf("%s: it is attached to", state)
		}
		if err := s.CheckAttach("d"); !errdefs.IsNotFound(err) {
			t.Errorf("an unknown container: %v", err)
		}
	}
}

func TestWhatBecomesOfAClientsInput(t *testing.T) {
	in := func() io.Reader { return strings.NewReader("hello") }
	for name, c := range map[string]struct {
		from   io.Reader
		wanted bool // the container has an input
		closed bool // and has closed it
		got    string
	}{
		"it is copied, then ended":                     {in(), true, false, "hello"},
		"a client without input ends it":               {nil, true, false, ""},
		"what no container wants is dropped":           {in(), false, false, ""},
		"what comes after the container's end is, too": {in(), true, true, ""},
	} {
		read, write := pipe(t)
		if !c.wanted {
			_ = write.Close()
			write = nil
		}
		if c.closed {
			_ = read.Close()
		}
		<-feed(t.Context(), write, c.from)
		if c.from != nil {
			if left, _ := io.ReadAll(c.from); len(left) > 0 {
				t.Errorf("%s: %q was not taken", name, left)
			}
		}
		if !c.closed {
			if got, err := io.ReadAll(read); err != nil || string(got) != c.got {
				t.Errorf("%s: the container got %q: %v", name, got, err)
			}
		}
	}
}

func TestInputIsClosedWhenTheSessionEnds(t *testing.T) {
	read, write := pipe(t)
	silent, keep := io.Pipe()
	defer keep.Close()
	ctx, cancel := context.WithCancel(t.Context())
	fed := feed(ctx, write, silent)
	cancel()
	if _, err := io.ReadAll(read); err != nil { // it ends
		t.Error(err)
	}
	keep.Close()
	<-fed
}
