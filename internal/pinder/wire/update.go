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

// Checkpoint asks for the runtime's "checkpoint"; the container goes on. Both directories are absolute, exist and are
// empty: ImageDir gets CRIU's image files, WorkDir its log and statistics.
type Checkpoint struct {
	ID            string `json:"id"`
	ImageDir      string `json:"imageDir"`
	WorkDir       string `json:"workDir"`
	TimeoutMillis int64  `json:"timeoutMillis,omitempty"`
}
