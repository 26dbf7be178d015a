package keeper

import (
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

func TestStateOutlivesItsWriter(t *testing.T) {
	st, err := newState()
	if err != nil {
		t.Fatal(err)
	}
	p := bareKeeper(t).wrap("c/a", st, meta{ID: "a"})
	for i := range 5 {
		if err := p.update(func(m *meta) { m.PID = i; m.LogPath = strings.Repeat("p", i*100) }); err != nil {
			t.Fatal(err)
		}
		copied, err := descriptor.Duplicate(st.fd)
		if err != nil {
			t.Fatal(err)
		}
		next, err := openState(copied)
		if err != nil {
			t.Fatal(err)
		}
		m, err := next.loadMeta()
		next.close()
		if err != nil || m.PID != i || len(m.LogPath) != i*100 {
			t.Fatalf("round %d: %+v, %v", i, m, err)
		}
	}
	st.close()
	fd, err := unix.MemfdCreate("bad", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(fd); err == nil || !strings.Contains(err.Error(), "layout") {
		t.Fatalf("a strange memfd: %v", err)
	}
}

// The layout is that of pinders since the first release: an upgrade maps what they have made.
func TestTheLayoutOfTheStatePage(t *testing.T) {
	const metaWords, logWords = 4, 5 + 2*4
	if got := unsafe.Offsetof(page{}.log); got != metaWords*8 {
		t.Errorf("the log's part begins at %d", got)
	}
	if got := unsafe.Sizeof(page{}); got != (metaWords+logWords)*8 {
		t.Errorf("%d bytes", got)
	}
}
