// Package pinder is the pair of processes that runs the OCI runtime for all
// containers of a node, owns their standard streams and log files, and records
// how every container ended.
//
// # The pair
//
// The outer process, the reaper, holds the listening socket and a duplicate of
// every descriptor that matters, and starts the inner one, the supervisor,
// which does all the work. Both are sub-reapers
// (PR_SET_CHILD_SUBREAPER), so:
//
//   - when the supervisor ends, its children become the reaper's, and a new
//     supervisor gets the descriptors back from the reaper;
//   - when the reaper ends, the supervisor, which has all descriptors, becomes
//     the reaper (it executes pinder anew) and starts a new supervisor;
//   - when both end, the daemon gives its own duplicates to a new pair.
//
// # The rooms
//
//	wire        the protocol between daemon and pinder
//	client      the daemon's end of it
//	reaper      the outer process
//	link        the protocol between reaper and supervisor
//	keeper      in the supervisor: containers and execs; how an exit code is found
//	oci         in the supervisor: calls of the OCI runtime
//	logpump     in the supervisor: from a container's output to its log
//	descriptor  file descriptors
//	ownlog      pinder's own log
//
// This package is the roof: the supervisor, which serves daemons, watches the reaper and takes its place, and process 1 of
// a pod.
//
// The package uses only the standard library and golang.org/x/sys.
package pinder
