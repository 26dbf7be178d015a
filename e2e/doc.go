// Package e2e uses pinfoldd as its clients do: through its socket, with the real kernel, the real
// OCI runtime, real network plugins and a real registry on loopback.
//
// The scenario files in testdata describe the life cycle: prose, commands, and the expected state
// after each (see scenario_test.go). What is hard to read as a scenario is a Go test.
//
// The tests run as root. TestMain first moves them into their own network and mount namespaces, so
// that they do not change the host's network and mounts. For the daemon under test these are the
// node's.
package e2e
