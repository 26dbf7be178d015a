package keeper

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/logpump"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	stateMagic   = 0x70696e6465723031 // "pinder01": the layout of page and slots
	pageSize     = 4096
	metaSlotSize = 64 << 10
)

// page is the first page of a process's shared state. All supervisors that have the process map it. Its layout never
// changes. Each field is one word, written by one 8-byte store.
type page struct {
	magic    uint64
	metaSlot uint64 // which of the two meta slots is valid
	metaLen  [2]uint64
	log      logpump.Cursor
}

// sharedState is a memfd: a page, then two slots of JSON. It outlives
// any supervisor as long as the reaper or the daemon holds a duplicate.
type sharedState struct {
	fd  int
	mem []byte
	*page
}

func newState() (*sharedState, error) {
	fd, err := unix.MemfdCreate("pinder-state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, pageSize+2*metaSlotSize); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("size state memfd: %w", err)
	}
	st, err := mapState(fd)
	if err != nil {
		return nil, err
	}
	atomic.StoreUint64(&st.magic, stateMagic)
	return st, nil
}

// openState maps a memfd that came from elsewhere. It takes ownership of fd.
func openState(fd int) (*sharedState, error) {
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil || info.Size < pageSize+2*metaSlotSize {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("state memfd has %d bytes (%w)", info.Size, err)
	}
	st, err := mapState(fd)
	if err != nil {
		return nil, err
	}
	if got := atomic.LoadUint64(&st.magic); got != stateMagic {
		st.close()
		return nil, fmt.Errorf("state memfd has layout %#x, this pinder knows %#x", got, uint64(stateMagic))
	}
	return st, nil
}

func mapState(fd int) (*sharedState, error) {
	mem, err := unix.Mmap(fd, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("map state memfd: %w", err)
	}
	return &sharedState{fd: fd, mem: mem, page: (*page)(unsafe.Pointer(&mem[0]))}, nil
}

// close unmaps the state. The caller holds process.mu, and the log pump is closed. Later reads see an empty page, and
// writes fail.
func (st *sharedState) close() {
	_ = unix.Munmap(st.mem)
	_ = unix.Close(st.fd)
	st.fd, st.mem, st.page = -1, nil, new(page)
}

// saveMeta writes m to the slot not in use and then switches slots.
func (st *sharedState) saveMeta(m *meta) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if len(b) > metaSlotSize {
		return fmt.Errorf("state of %s has %d bytes, at most %d", m.ID, len(b), metaSlotSize)
	}
	slot := 1 - atomic.LoadUint64(&st.metaSlot)&1
	if _, err := unix.Pwrite(st.fd, b, pageSize+int64(slot)*metaSlotSize); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	atomic.StoreUint64(&st.metaLen[slot], uint64(len(b)))
	atomic.StoreUint64(&st.metaSlot, slot)
	return nil
}

func (st *sharedState) loadMeta() (meta, error) {
	var m meta
	slot := atomic.LoadUint64(&st.metaSlot) & 1
	n := atomic.LoadUint64(&st.metaLen[slot])
	if n > metaSlotSize {
		return m, fmt.Errorf("state memfd: slot of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := unix.Pread(st.fd, b, pageSize+int64(slot)*metaSlotSize); err != nil {
		return m, fmt.Errorf("read state memfd: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("decode state memfd: %w", err)
	}
	return m, nil
}

// meta is what a next supervisor has to know of a container or exec. Fields may be added. None may change its meaning:
// after an upgrade, older states are read.
//
// wide: it is the whole of one record, in one place
type meta struct {
	ID      string       `json:"id"`
	ExecID  string       `json:"execID,omitempty"`
	Phase   string       `json:"phase"`
	Runtime wire.Runtime `json:"runtime"`
	Bundle  string       `json:"bundle,omitempty"`
	TTY     bool         `json:"tty,omitempty"`
	Started bool         `json:"started,omitempty"` // the runtime's "start" succeeded
	LogDir  string       `json:"logDir,omitempty"`
	Stopped bool         `json:"stopped,omitempty"` // a signal with Once was sent
	LogPath string       `json:"logPath,omitempty"`
	LogLost bool         `json:"logLost,omitempty"`

	proc.Process
	Cgroup group  `json:"cgroup"`
	Domain domain `json:"domain,omitzero"`

	// Deadline is that of the runtime call under way, Unix nanoseconds.
	Deadline int64 `json:"deadline,omitempty"`

	Group string `json:"group,omitempty"` // of an exec: the directory of its cgroup
	// Transient says that the exec is killed when the daemon that asked for it is gone.
	Transient bool `json:"transient,omitempty"`

	Exit     *wire.Exit `json:"exit,omitempty"`
	ExitFile string     `json:"exitFile,omitempty"`
	Recorded bool       `json:"recorded,omitempty"` // ExitFile is written
}
