// Package pod is the model of pods (sandboxes) and of their containers: their records and states, the objects in
// memory, the book that lists them, the events that they have, and the names and paths that derive from their IDs.
//
// What happens to them is in the packages below: lifecycle runs the operations of CRI, session connects clients with
// containers and pods, recovery brings book, records and kernel in line.
//
// # What owns what
//
// A sandbox is its pinned namespaces; no process belongs to it. Before a step makes anything, the sandbox's record
// says so. Every name (pins, mounts, bundle, groups, directories) derives from the ID, so the first version of the
// record is enough to find all of it. A record is removed only when all that it owns is known to be removed.
//
// # Locks, in the order in which they may be taken
//
//	Sandbox.Order     one operation on a sandbox at a time; held across steps
//	  Container.Order one operation on a container at a time; held across steps
//	    Book.mu       the index; a few instructions, never across a step or a system call
//
// Readers (list, status) take neither of the first two: a record is an immutable value behind an atomic pointer.
// Container.Order may be taken without Sandbox.Order. A stop takes neither while it waits for a process to end, so
// a kill never waits for an operation that hangs.
package pod
