package stats

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
)

// Files are the open files of a container's processes.
type Files struct {
	Descriptors, Sockets uint64
	// Limit is the soft limit of the container's first process, nil if that has ended.
	Limit *uint64
}

// Files counts open files. It looks at every descriptor, so it takes longer than all the rest.
func (r *Reader) Files(u *Usage, p proc.Process) *Files {
	f := &Files{}
	if u.Tasks != nil {
		for _, pid := range u.Tasks.pids {
			f.count(filepath.Join(r.proc, strconv.Itoa(pid), "fd"))
		}
	}
	// prlimit(2) would need CAP_SYS_RESOURCE for a process of another user.
	if data, ok := read(r.proc, strconv.Itoa(p.PID), "limits"); ok && r.check(p) == nil {
		f.Limit = parseOpenFilesLimit(data)
	}
	return f
}

func (f *Files) count(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	f.Descriptors += uint64(len(names))
	for _, name := range names {
		if target, err := os.Readlink(filepath.Join(dir, name)); err == nil && strings.HasPrefix(target, "socket:") {
			f.Sockets++
		}
	}
}
