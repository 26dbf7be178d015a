// Package entry writes down how a process gets into a running container: the OCI process, and what is known of the
// container, become a list of system calls (package spawn). The result is that of the OCI runtime's exec.
//
// What the package does not understand it refuses with ErrRuntime; then the runtime does it. So does it where a call
// fails: the runtime has the better words for the reason.
//
// The child does the first part as the node's root, in the node's mount namespace, where no file is the container's:
// it joins the cgroups, sets its limits and its LSM's label. Then it joins the container's namespaces at once, and does
// the rest there. At that point it has only the descriptors that the program gets, two ends of pipes, and no
// directory's. It is a process that only the node's root may trace, until the program runs.
//
// The package uses only the standard library and golang.org/x/sys.
package entry
