package logpump

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// However many attachers do not read, they hold up the log for the same time together.
func TestFullPipesHoldUpTheLogABoundedTimeTogether(t *testing.T) {
	var all attachers
	data := make([]byte, 4<<20)
	begin := time.Now()
	for range 40 {
		from, to, err := attachEnds()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(from)
		defer unix.Close(to)
		if err := all.write(to, data); !errors.Is(err, unix.EAGAIN) {
			t.Fatalf("a pipe that is not read takes %d bytes: %v", len(data), err)
		}
	}
	if took := time.Since(begin); took < maxWait || took > 3*holdUp {
		t.Errorf("40 of them hold up the log for %s, want about %s", took, holdUp)
	}
	if left := all.left(all.last.Add(2 * holdUpRate * holdUp)); left != holdUp {
		t.Errorf("after a while there is %s, want %s", left, holdUp)
	}
}
