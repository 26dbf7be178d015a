// Package spawn makes a child process out of a list of system calls. The parent writes the list: numbers, arguments, and
// what their results mean. The child carries it out, one call after the other, from registers, and ends with execve(2). It
// never runs Go: after fork(2) a program with threads may only do what needs no lock and no memory.
//
// The list is in memory that parent and child share, so the parent reads the results there. All else that the child has is
// a copy of the parent's memory (there is no CLONE_VM). With shared memory
//   - the kernel would kill the parent, too, when it kills the child's cgroup for want of memory (mm/oom_kill.c,
//     __oom_kill_process);
//   - a change of the child's credentials, or of its oom_score_adj, would change the parent's
//     (kernel/cred.c, commit_creds; fs/proc/base.c, __set_oom_adj);
//   - a process that may trace the child could write the parent's memory.
//
// The package knows nothing of containers. It uses only the standard library and golang.org/x/sys.
package spawn
