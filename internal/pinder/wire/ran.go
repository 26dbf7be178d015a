package wire

// TypeRan is an event: the OCI runtime was run. Its body is Ran. A daemon that does not know it ignores it.
const TypeRan = "ran"

// Ran is one run of the OCI runtime. It is sent before the answer to the request that it was for.
type Ran struct {
	ID      string `json:"id"`      // of the container
	Program string `json:"program"` // the name of the runtime's binary
	Command string `json:"command"` // "create"
	// Flags are the names of the options that the runtime was given, without their values.
	Flags []string `json:"flags,omitempty"`
	Began int64    `json:"began"` // in Unix nanoseconds
	Took  int64    `json:"took"`  // in nanoseconds
	// Failed says that the runtime failed, or did not end in time. The answer to the request says why.
	Failed bool `json:"failed,omitempty"`
}
