package wire

// Hello is the first message in each direction.
type Hello struct {
	Version      int      `json:"version"`
	Capabilities []string `json:"capabilities,omitempty"`
	// Reaper and Supervisor are pinder's two process IDs (from pinder only).
	Reaper     int `json:"reaper,omitempty"`
	Supervisor int `json:"supervisor,omitempty"`
}

// Runtime says how to call an OCI runtime. TimeoutMillis bounds one call.
type Runtime struct {
	Binary        string `json:"binary"`
	Root          string `json:"root"`
	SystemdCgroup bool   `json:"systemdCgroup,omitempty"`
	TimeoutMillis int64  `json:"timeoutMillis,omitempty"`
	// Rlimits are those of the runtime's own process in a call that makes a process, which that inherits; absent, what
	// the runtime is told by its configuration counts alone.
	Rlimits []Rlimit `json:"rlimits,omitempty"`
}

// Owner is a user of the node: host IDs, also where the process has others in its user namespace.
type Owner struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// Create asks for a container up to and including the runtime's "create".
type Create struct {
	ID       string  `json:"id"`
	Bundle   string  `json:"bundle"`
	Runtime  Runtime `json:"runtime"`
	TTY      bool    `json:"tty,omitempty"`
	Stdin    bool    `json:"stdin,omitempty"`
	LogPath  string  `json:"logPath,omitempty"`
	ExitFile string  `json:"exitFile,omitempty"`
	// LogDir is the directory below which the log's path may have no symbolic link; absent, that of LogPath itself.
	LogDir string `json:"logDir,omitempty"`
	// Owner gets the pipes of the standard streams; absent, they are pinder's own.
	Owner *Owner `json:"owner,omitempty"`
}

// Created answers Create.
type Created struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"`
	Cgroup    string `json:"cgroup,omitempty"`
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
	// Once asks for no signal if one with Once was sent to the process before. Absent in requests of older daemons.
	Once bool `json:"once,omitempty"`
}

// Delete ends a container and everything known of it. Runtime is needed only
// for a container that pinder does not know.
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

// Exit says how a process ended. At is in Unix nanoseconds.
type Exit struct {
	ID        string `json:"id"`
	ExecID    string `json:"execID,omitempty"`
	Code      int    `json:"code"`
	Signal    int    `json:"signal,omitempty"`
	OOMKilled bool   `json:"oomKilled,omitempty"`
	Unknown   bool   `json:"unknown,omitempty"`
	At        int64  `json:"at"`
}

// Container is the state of one container or exec.
type Container struct {
	ID        string `json:"id"`
	ExecID    string `json:"execID,omitempty"`
	Phase     string `json:"phase"`
	PID       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"startTime,omitempty"`
	Cgroup    string `json:"cgroup,omitempty"`
	// LogLost says that the container's output can no longer be logged.
	LogLost bool `json:"logLost,omitempty"`
	// LostBytes counts output that could not be written to the log and is not yet marked there.
	LostBytes uint64 `json:"lostBytes,omitempty"`
	Exit      *Exit  `json:"exit,omitempty"`
	// Transient says that an exec was asked for with Group: without the daemon that did, nothing can come of it.
	Transient bool `json:"transient,omitempty"`
}

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
	ID        string  `json:"id"`
	Bundle    string  `json:"bundle"`
	Runtime   Runtime `json:"runtime"`
	PID       int     `json:"pid"`
	StartTime uint64  `json:"startTime"`
	ExitFile  string  `json:"exitFile,omitempty"`
	LogPath   string  `json:"logPath,omitempty"`
	TTY       bool    `json:"tty,omitempty"`
}

// Upgrade asks both processes to replace themselves by the binary at Path.
type Upgrade struct {
	Path string `json:"path"`
}
