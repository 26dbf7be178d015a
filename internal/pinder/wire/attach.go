package wire

// TypeAttach asks for a container's own streams: body Attach, answer Attached with descriptors. Capability "attach".
const TypeAttach = "attach"

// TypeKillExec asks for the end of an exec and, where it has a group (see Exec.Group), of all that it
// started: body Call with an ExecID. It is answered when they are dead. Capability "exec-group".
const TypeKillExec = "kill-exec"

// Attach asks for duplicates of a container's output from now on, and for its input.
type Attach struct {
	ID string `json:"id"`
	// AttachID names the session. One that was cut off, because the daemon did not read, is refused when it comes again.
	AttachID string `json:"attachID"`
	Stdin    bool   `json:"stdin,omitempty"`
	// StdinOnce asks for the only descriptor of standard input there is: it ends when the daemon closes it.
	StdinOnce bool `json:"stdinOnce,omitempty"`
	Stdout    bool `json:"stdout,omitempty"`
	Stderr    bool `json:"stderr,omitempty"`
}

// Attached answers Attach. Streams names the descriptors passed with it, in order: "stdin" (of a terminal
// its master), "stdout", "stderr". One that has ended, or was given to another client, is missing.
type Attached struct {
	Streams []string `json:"streams,omitempty"`
}
