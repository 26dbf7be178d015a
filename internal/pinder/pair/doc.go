// Package pair proves pinder's two processes together, as the daemon uses them: real processes, containers of a real OCI
// runtime, and processes that are killed, stopped or replaced at any time. It has no code of its own. What one room does
// alone is tested in that room.
package pair
