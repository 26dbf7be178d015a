package wire

// Requests that let the OCI runtime work on a container that exists. Capabilities "update" and "checkpoint".
const (
	TypeUpdate     = "update"     // body Update
	TypeCheckpoint = "checkpoint" // body Checkpoint
)

// Update asks for the runtime's "update" with the OCI resources as JSON.
type Update struct {
	ID            string `json:"id"`
	Resources     []byte `json:"resources"`
	TimeoutMillis int64  `json:"timeoutMillis,omitempty"`
}

// Checkpoint asks for the runtime's "checkpoint" into an existing directory; the container goes on. WorkDir gets
// CRIU's log.
type Checkpoint struct {
	ID            string `json:"id"`
	ImageDir      string `json:"imageDir"`
	WorkDir       string `json:"workDir"`
	TimeoutMillis int64  `json:"timeoutMillis,omitempty"`
}
