// Package session connects clients with containers and pods: exec, attach and port-forward. It knows nothing of the
// protocols that clients speak; package stream does.
package session
