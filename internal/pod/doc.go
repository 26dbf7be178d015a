// Package pod is the heart of Pinfold: the life of pods (sandboxes) and of their containers.
//
// Each operation is a list of named, reversible steps (sandbox_run.go, container_create.go, …) that
// package steps runs. The same list rolls back a failure, cleans up after a crash, and removes the
// object in the end: removing a sandbox is undoing the steps that made it.
//
// # What owns what
//
// A sandbox is its pinned namespaces; no process belongs to it. Before a step makes anything, the
// sandbox's record says so, and every name (pins, mounts, bundle, groups, directories) derives from
// the ID, so that the record of intent is enough to find all of it. A record goes only when
// everything it owns is confirmed gone.
//
// # Locks, in the order they may be taken
//
//	Sandbox.order     one operation on a sandbox at a time; held across steps
//	  Container.order one operation on a container at a time; held across steps
//	    Book.mu       the index; a few instructions, never across a step or a system call
//
// Readers (list, status) take no order lock: a record is an immutable value behind an atomic pointer.
// Container.order may be taken without Sandbox.order; a stop takes neither while it waits for a
// process to end, so a kill is never behind a hung operation.
package pod
