// Package e2e drives pinfoldd as its users do: through its socket, with the real kernel, the real OCI
// runtime, real network plugins and a real registry on loopback.
//
// The life cycle is told by the scenario files in testdata: prose, commands, and the state expected
// after each (see scenario_test.go). What does not read well as a scenario is a test of its own.
//
// The tests run as root. To leave the host's network and mount table alone they first move into
// network and mount namespaces of their own (TestMain); the daemon under test takes these for the
// node's.
package e2e
