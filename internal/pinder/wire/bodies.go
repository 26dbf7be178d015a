package wire

import (
	"time"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
)

// Hello is the first message in each direction.
type Hello struct {
	Version      int      `json:"version"`
	Capabilities []string `json:"capabilities,omitempty"`
	// Reaper and Supervisor are pinder's two process IDs (from pinder only).
	Reaper     int `json:"reaper,omitempty"`
	Supervisor int `json:"supervisor,omitempty"`
}

// Runtime says how to call an OCI runtime.
type Runtime struct {
	Binary        string `json:"binary"` // absolute
	Root          string `json:"root"`   // absolute, for the runtime's --root
	SystemdCgroup bool   `json:"systemdCgroup,omitempty"`
	// TimeoutMillis bounds one call; 0 is two minutes, or in the client the context's deadline.
	TimeoutMillis int64 `json:"timeoutMillis,omitempty"`
	// Rlimits are set on the runtime's process in a call that makes a process, which inherits them. Absent, the
	// runtime sets those of its configuration.
	Rlimits []Rlimit `json:"rlimits,omitempty"`
}

// Owner is a user of the node: host IDs, also where the process has others in its user namespace.
type Owner struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// Create asks for a container up to and including the runtime's "create".
type Create struct {
	ID      string  `json:"id"`
	Bundle  string  `json:"bundle"` // absolute
	Runtime Runtime `json:"runtime"`
	TTY     bool    `json:"tty,omitempty"`   // one terminal for all three streams
	Stdin   bool    `json:"stdin,omitempty"` // keep standard input open; else it is a pipe at its end
	// LogPath is the absolute path of the CRI log, whose directory has to exist. What is there already has to be a
	// regular file. Absent, output is discarded.
	LogPath string `json:"logPath,omitempty"`
	// ExitFile is the absolute path of the exit record, an Exit that pinder writes by rename before it tells of the exit.
	ExitFile string `json:"exitFile,omitempty"`
	// LogDir is the pod's directory of logs, which LogPath lies in; below it no symbolic link is followed. Absent, it is
	// LogPath's own directory.
	LogDir string `json:"logDir,omitempty"`
	// Owner gets the pipes of the standard streams, so that the process can open them again through /dev/stdout; absent,
	// they are pinder's own.
	Owner *Owner `json:"owner,omitempty"`
}

// Created answers Create.
type Created struct {
	proc.Process // the container's init
	// Cgroup is the path in /proc/PID/cgroup, of version 1's memory controller where there is one, else of cgroup2.
	Cgroup string `json:"cgroup,omitempty"`
}

// Call names a container or, with ExecID, one of its execs.
type Call struct {
	ID            string `json:"id"`
	ExecID        string `json:"execID,omitempty"`
	TimeoutMillis int64  `json:"timeoutMillis,omitempty"`
}

// Signal asks for a signal to a container's init or an exec'd process.
type Signal struct {
	ID     string `json:"id"`
	ExecID string `json:"execID,omitempty"`
	Signal int    `json:"signal"`
	// Once asks for no signal if one with Once was sent to the process before. Older daemons do not send it.
	Once bool `json:"once,omitempty"`
}

// Delete kills a container and removes it with all that pinder knows of it. Runtime is used only if pinder does not
// know the container.
type Delete struct {
	ID      string  `json:"id"`
	Runtime Runtime `json:"runtime"`
}

// Exec starts a further process in a container. Process is the OCI process as JSON.
type Exec struct {
	ID            string `json:"id"`
	ExecID        string `json:"execID"`
	Process       []byte `json:"process"`
	TTY           bool   `json:"tty,omitempty"`
	Stdin         bool   `json:"stdin,omitempty"`
	TimeoutMillis int64  `json:"timeoutMillis,omitempty"`
	// Group asks for a cgroup of its own, where possible; see TypeKillExec.
	Group bool `json:"group,omitempty"`
	// Direct allows pinder to make the process itself, without the OCI runtime, where the result is the same. Older
	// daemons do not send it.
	Direct bool `json:"direct,omitempty"`
	// Owner is as in Create.
	Owner *Owner `json:"owner,omitempty"`
}

// ExecStarted answers Exec. Streams names the descriptors passed with it, in
// order: "stdin", "stdout", "stderr" or "tty".
type ExecStarted struct {
	PID     int      `json:"pid"`
	Streams []string `json:"streams,omitempty"`
}

// Resize sets a container's terminal size in character cells.
type Resize struct {
	ID     string `json:"id"`
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// Exit says how a container or exec ended.
type Exit struct {
	ID        string `json:"id"`
	ExecID    string `json:"execID,omitempty"` // absent for a container
	Code      int    `json:"code"`             // the exit code, or 128 + Signal
	Signal    int    `json:"signal,omitempty"`
	OOMKilled bool   `json:"oomKilled,omitempty"`
	Unknown   bool   `json:"unknown,omitempty"` // the kernel could not be asked: Code says nothing
	At        int64  `json:"at"`                // in Unix nanoseconds
}

// Time is when it ended.
func (e *Exit) Time() time.Time { return time.Unix(0, e.At) }

// Container is the state of one container or exec.
type Container struct {
	ID           string `json:"id"`
	ExecID       string `json:"execID,omitempty"`
	Phase        string `json:"phase"` // one of the phases below
	proc.Process        // none before there is one
	Cgroup       string `json:"cgroup,omitempty"`
	// LogLost says that the container's output can no longer be logged.
	LogLost bool `json:"logLost,omitempty"`
	// LostBytes counts output that could not be written to the log and is not yet marked there.
	LostBytes uint64 `json:"lostBytes,omitempty"`
	Exit      *Exit  `json:"exit,omitempty"`
	// Transient says that the exec was asked for with Group. If the daemon that asked is gone, it is killed.
	Transient bool `json:"transient,omitempty"`
}

// Running reports whether the process has been started and has not ended.
func (c *Container) Running() bool { return c.Phase == PhaseRunning }

// Phases of a container or exec.
const (
	PhaseCreating = "creating"
	PhaseCreated  = "created"
	PhaseStarting = "starting"
	PhaseRunning  = "running"
	PhaseExited   = "exited"
	PhaseDeleted  = "deleted"
)

// List answers TypeList and TypeSync.
type List struct {
	Containers []Container `json:"containers"`
}

// Keep carries the duplicates of one object's descriptors: Kinds[i] says what
// the message's i-th descriptor is. Key is opaque to the daemon.
type Keep struct {
	Key   string   `json:"key"`
	Kinds []string `json:"kinds"`
}

// Keys names objects.
type Keys struct {
	Keys []string `json:"keys"`
}

// Adopt asks pinder to watch a container's init of which it has no descriptors.
type Adopt struct {
	ID           string  `json:"id"`
	Bundle       string  `json:"bundle"`
	Runtime      Runtime `json:"runtime"`
	proc.Process         // the container's init; pinder refuses another process of that PID
	ExitFile     string  `json:"exitFile,omitempty"`
	LogPath      string  `json:"logPath,omitempty"`
	TTY          bool    `json:"tty,omitempty"`
}

// Upgrade asks both processes to replace themselves by the binary at Path.
type Upgrade struct {
	Path string `json:"path"`
}
