package oci

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
)

// Unfinished are runtime calls that an earlier supervisor began and that have not ended. They go on, whatever process
// is their parent now, and nothing may be done to their container before they end.
//
// A call is found by its --log option, which names a file in the calls directory of this state directory. The last
// argument is its container. Calls are looked for once, before a supervisor makes calls of its own.
type Unfinished struct {
	mu   sync.Mutex
	byID map[string][]*descriptor.Handle
	// files are those that are not needed when the call has ended.
	files map[*descriptor.Handle][]string
}

// scanLimit is how long to wait for children of an earlier supervisor that have not become the runtime yet: between
// fork and exec they look like the supervisor.
const scanLimit = time.Second

// FindUnfinished looks for calls whose files are in callsDir, of supervisors of stateDir.
func FindUnfinished(callsDir, stateDir string) *Unfinished {
	s := &Unfinished{byID: map[string][]*descriptor.Handle{}, files: map[*descriptor.Handle][]string{}}
	for giveUp := time.Now().Add(scanLimit); ; time.Sleep(time.Millisecond) {
		if forking := s.scan(callsDir, stateDir); !forking || time.Now().After(giveUp) {
			return s
		}
	}
}

// scan adds the calls that it finds, and reports whether a process looks like another supervisor of this state
// directory.
func (s *Unfinished) scan(callsDir, stateDir string) (forking bool) {
	for _, hs := range s.byID {
		for _, h := range hs {
			h.Close()
		}
	}
	clear(s.byID)
	clear(s.files)
	mark := []byte("\x00" + callsDir + "/")
	twin := []byte("pinder\x00supervise\x00--state\x00" + stateDir + "\x00")
	ours := proc.PIDNamespace(os.Getpid())
	pids, err := proc.PIDs()
	if err != nil {
		ownlog.Printf("look for runtime calls: %v", err)
		return false
	}
	buf := make([]byte, proc.MaxCommandLine)
	for _, pid := range pids {
		if pid == os.Getpid() {
			continue
		}
		args := proc.CommandLine(pid, buf)
		if bytes.Equal(args, twin) {
			forking = true
		}
		if !bytes.Contains(args, mark) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// Read after the pidfd was opened, so it is of the same process. A process in a container may have any name,
		// but it is in another PID namespace.
		ns := proc.PIDNamespace(pid)
		h, err := descriptor.Pollable(fd, "runtime")
		if args = proc.CommandLine(pid, buf); err != nil || !bytes.Contains(args, mark) || ns != ours {
			_ = unix.Close(fd)
			continue
		}
		fields := strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")
		id := fields[len(fields)-1]
		if id == "KILL" && len(fields) > 1 { // "kill ID KILL"
			id = fields[len(fields)-2]
		}
		s.byID[id] = append(s.byID[id], h)
		s.files[h] = unfinishedFiles(fields)
	}
	return forking
}

// unfinishedFiles are the files that a call names: its log, and the pid file of an exec, which
// nothing reads any more. That of a create is read when the container is restored.
func unfinishedFiles(args []string) []string {
	options := []string{"--log"}
	if slices.Contains(args, "exec") {
		options = append(options, "--pid-file", "--process")
	}
	var files []string
	for _, option := range options {
		if at := slices.Index(args, option); at >= 0 && at+1 < len(args) {
			files = append(files, args[at+1])
		}
	}
	return files
}

// Await waits for the calls for a container, and kills those that have not ended at the deadline. It reports whether
// there were any.
func (s *Unfinished) Await(id string, deadline time.Time) bool {
	s.mu.Lock()
	hs := s.byID[id]
	delete(s.byID, id)
	s.mu.Unlock()
	for _, h := range hs {
		ended := func(uintptr) bool { return proc.Ended(h.FD) }
		_ = h.File.SetReadDeadline(deadline)
		if h.Raw.Read(ended) != nil {
			ownlog.Printf("container %s: a runtime call of an earlier supervisor does not end: killing it", id)
			_ = unix.PidfdSendSignal(h.FD, unix.SIGKILL, nil, 0)
			_ = h.File.SetReadDeadline(time.Now().Add(KillGrace))
			_ = h.Raw.Read(ended)
		}
		h.Close()
		// The call may have made them after the files of dead supervisors were removed.
		s.mu.Lock()
		files := s.files[h]
		delete(s.files, h)
		s.mu.Unlock()
		for _, file := range files {
			_ = os.Remove(file)
		}
	}
	return len(hs) > 0
}
