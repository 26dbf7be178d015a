// Package ocispec turns CRI configurations into OCI runtime configurations.
//
// Everything here is a pure function of its arguments: it reads no file, asks no process, and logs
// nothing. The same arguments give the same result, byte for byte. What a function needs to know
// about the node or the image is an argument: [Host], [Sandbox], [Container]. (One exception is not
// ours: a seccomp profile may have rules for some kernel versions, and package seccomp asks the
// running kernel for its version.)
//
// # Order of use
//
// [ValidateSandbox] and [ValidateContainer] return all that is wrong with a request, before
// anything is made for it. [Build] returns the whole configuration of a container, [Exec] the
// process of an exec in it, [Resources] the resources of an update. [EffectiveUser], [StopSignal]
// and [Sysctls] return what is not part of the configuration.
//
// # What is not in the configuration
//
// Sysctls belong to the pod's namespaces, which exist before its first container and after its last
// one. Whoever makes the namespaces writes what [Sysctls] lists, once. The caller injects CDI
// devices into the built configuration; [Features.CDI] says that it does.
//
// # Errors
//
// A request that is wrong in itself is errdefs.ErrInvalidArgument. A request that this node cannot
// fulfil is errdefs.ErrFailedPrecondition. The text begins with the field's path in the CRI message
// and contains the refused value. It names all faults, not only the first.
package ocispec
