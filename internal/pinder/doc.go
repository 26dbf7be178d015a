// Package pinder is the node's container supervisor: one pair of processes that
// runs the OCI runtime, owns the containers' standard streams and log files,
// and records how every container ended.
//
// # The pair
//
// The outer process, the reaper, holds the listening socket and a duplicate of
// every descriptor that matters, and starts the inner one, the supervisor,
// which does all the work. Both are sub-reapers
// (PR_SET_CHILD_SUBREAPER), so:
//
//   - when the supervisor dies, its children become the reaper's, and a new
//     supervisor gets the descriptors back from the reaper;
//   - when the reaper dies, the supervisor, who has everything, executes itself
//     into a reaper in place and starts a new supervisor;
//   - when both die, the daemon gives its own duplicates to a new pair.
//
// # Exit codes
//
// The kernel keeps them: a container's zombie is reaped only after its exit
// record is written. The supervisor looks at it with WNOWAIT, or asks the
// reaper to, and at last asks the pidfd itself (PIDFD_GET_INFO with
// PIDFD_INFO_EXIT, Linux 6.15), which works whatever process the parent was. Before
// Linux 6.15 that last way is missing, and the exit is reported as unknown when
// the container's parent died without an heir: its children go to the machine's
// init, which reaps them. That happens when the reaper dies after it has become
// the parent, because the supervisor that started the container died or turned
// into this reaper, and when both die at once; never at the first death of one
// half. Logs are whole in every case. A pid is never used without a pidfd, except
// for our own unreaped children, whose pids cannot be reused.
//
// # Log lines
//
// See package logpump: no line is lost or doubled, whichever process is killed.
//
// # Locks
//
// In this order, outermost first; any may be skipped:
//
//	process.op     one runtime operation of one container (seconds)
//	  supervisor.oom  one comparison of OOM counters (no blocking)
//	  logpump.Pump.mu  one log write of one container (a disk's latency)
//	   process.keeping  one hand-over of descriptors (the reaper's latency)
//	    process.mu     the container's state and descriptors (no blocking)
//	      supervisor.mu  the table of containers and connections (no blocking)
//
// No lock common to two containers is held across a system call that can block
// on a container, a runtime or a disk.
//
// The package uses only the standard library and golang.org/x/sys.
package pinder
