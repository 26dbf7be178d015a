// Command pinfold is the operator's tool. It runs pods without Kubernetes, shows those that run,
// and handles images. It uses the daemon's socket for everything.
//
// Each command, or group of commands, is a file: its function returns the cobra command with its
// help, and root.go lists it. What the commands share: endpoint.go finds the socket, connect.go
// connects and says why it cannot, output.go prints, find.go finds what a name means, usage.go has
// the errors of usage.
package main

import (
	"os"
)

// version is set by the linker (see Makefile).
var version = "0.0.0-dev"

func main() {
	t := newTool()
	os.Exit(t.execute(os.Args[1:]))
}
