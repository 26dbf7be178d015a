package pair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// readTo reads until the text has come, or the end.
func readTo(t *testing.T, r io.Reader, want string) string {
	t.Helper()
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), want) {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v while waiting for %q in %q", err, want, got.String())
		}
	}
	return got.String()
}

func TestAttachersGetWhatIsLoggedFromThenOn(t *testing.T) {
	n := newNode(t)
	n.run("a", `while read l; do echo "out $l"; echo "err $l" >&2; done; exit 5`, func(_ map[string]any, r *wire.Create) { r.Stdin = true })
	first := n.attach("a", "1", false)
	fmt.Fprintln(first.Stdin, "one")
	readTo(t, first.Stdout, "out one\n")
	readTo(t, first.Stderr, "err one\n")
	second := n.attach("a", "2", true) // takes standard input for itself
	if third := n.attach("a", "3", true); third.Stdin != nil {
		t.Error("standard input was given away twice")
	}
	fmt.Fprintln(second.Stdin, "two")
	for _, a := range []*client.Attachment{first, second} {
		if got := readTo(t, a.Stdout, "two\n"); got != "out two\n" {
			t.Errorf("got %q", got)
		}
	}
	_, _ = first.Stdin.Close(), second.Stdin.Close()
	for _, a := range []*client.Attachment{first, second} {
		if rest, err := io.ReadAll(a.Stdout); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v at the end", rest, err)
		}
	}
	if e := n.exit("a"); e.Code != 5 {
		t.Errorf("exit code %d", e.Code)
	}
	if _, err := n.client.Attach(n.ctx(), wire.Attach{ID: "a", AttachID: "4", Stdout: true}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("attach to an ended container: %v", err)
	}
}

// attach opens all streams, which are closed when the test ends.
func (n *node) attach(id, session string, once bool) *client.Attachment {
	n.t.Helper()
	a, err := n.client.Attach(n.ctx(), wire.Attach{ID: id, AttachID: session, Stdin: true, StdinOnce: once, Stdout: true, Stderr: true})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		a.CloseOutputs()
		if a.Stdin != nil {
			a.Stdin.Close()
		}
	})
	return a
}

func TestAttacherThatDoesNotReadIsCutOffAndTheLogIsWhole(t *testing.T) {
	n := newNode(t)
	const lines = 300000
	n.run("a", fmt.Sprintf("read x; seq 1 %d; read x", lines), func(_ map[string]any, r *wire.Create) { r.Stdin = true })
	a := n.attach("a", "1", false)
	begin := time.Now()
	fmt.Fprintln(a.Stdin, "go")
	until(t, "it is cut off", func() bool {
		_, err := n.client.Attach(n.ctx(), wire.Attach{ID: "a", AttachID: "1", Stdout: true})
		return errors.Is(err, context.DeadlineExceeded)
	})
	t.Logf("cut off after %s", time.Since(begin))
	fmt.Fprintln(a.Stdin, "end")
	n.exit("a")
	out, _ := n.logged("a")
	if got := strings.Count(out, "\n"); got != lines {
		t.Errorf("the log has %d lines, want %d", got, lines)
	}
}

func TestKillAllEndsWhatAnExecStarted(t *testing.T) {
	n := newNode(t)
	n.run("a", "while :; do sleep 1; done")
	e, err := n.client.Exec(n.ctx(), wire.Exec{
		ID: "a", ExecID: "x", Group: true, Process: mustJSON(t, process("/bin/sh", "-c", "setsid sleep 4321 & setsid sleep 4321 & echo up; wait")),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Stdout.Close()
	defer e.Stderr.Close()
	readTo(t, e.Stdout, "up\n")
	if err := e.KillAll(n.ctx()); err != nil {
		t.Fatal(err)
	}
	// Its children held this pipe.
	if rest, err := io.ReadAll(e.Stdout); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if x, err := e.Wait(n.ctx()); err != nil || x.Code != 137 {
		t.Errorf("%+v, %v", x, err)
	}
}
