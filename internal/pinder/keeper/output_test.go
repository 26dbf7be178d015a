package keeper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/link"
	"github.com/pinfold-run/pinfold/internal/pinder/logpump"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// A daemon may have a log reopened as soon as the supervisor that follows a dead one knows the container. The write that
// was in progress then is finished in the old file.
func TestALogIsReopenedBeforeItsPumpStarts(t *testing.T) {
	k := bareKeeper(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(pair[1]) // a reaper that is gone
	if k.reaper, err = link.NewReaper(pair[0]); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "0.log")
	p, err := k.newProcess(meta{ID: "a", Phase: wire.PhaseRunning, LogPath: path})
	if err != nil {
		t.Fatal(err)
	}
	log, _, err := logpump.Open("", path)
	if err != nil {
		t.Fatal(err)
	}
	private, err := logpump.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	for kind, fd := range map[string]int{kindLog: int(log), kindPrivate: private.Read} {
		p.handles.set(kind, &descriptor.Handle{FD: fd})
	}
	if _, err := unix.Write(private.Write, []byte("in progress\n")); err != nil {
		t.Fatal(err)
	}
	*(*uint64)(unsafe.Pointer(&p.state.log)) = 1 // the phase in which a supervisor died: the output is in the private pipe

	p.preparePump()
	k.remember(p)
	old := path + ".1"
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	if err := k.reopenLog(wire.Call{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(old)
	if err != nil || !strings.HasSuffix(string(written), " stdout F in progress\n") {
		t.Errorf("the old log has %q, %v", written, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("the new log: %v, %v", info, err)
	}
	p.pump.Close()
	p.handles.closeAll()
	p.state.close()
}
