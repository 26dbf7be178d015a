// Package ocispec turns CRI configurations into OCI runtime configurations.
//
// Everything here is a pure function of its arguments: no file is read, no process asked, nothing
// logged, and the same arguments give the same result byte for byte. What a function needs to know of
// the node or of the image is passed in as a value: [Host], [Sandbox], [Container]. (One exception, not
// ours: a seccomp profile may have rules for kernels of some version only, and package seccomp asks the
// running kernel for its.)
//
// # Order of use
//
// [ValidateSandbox] and [ValidateContainer] say all that is wrong with a request before anything was
// made for it. [Build] gives the whole configuration of a container, [Exec] the process of an exec in
// it, [Resources] the resources of an update. [EffectiveUser], [StopSignal] and [Sysctls] answer the
// questions that are not part of the configuration itself.
//
// # What is not in the configuration
//
// Sysctls: they belong to the pod's namespaces, which exist before its first container and outlive each
// of them. The maker of the namespaces writes what [Sysctls] lists, once. CDI devices: the caller
// injects them into the built configuration ([Features.CDI] says that it will).
//
// # Errors
//
// A request that is wrong in itself is errdefs.ErrInvalidArgument; a request that is right but that this
// node cannot fulfil is errdefs.ErrFailedPrecondition. The text begins with the field's path in the CRI
// message and contains the refused value. When several things are wrong, all are named.
package ocispec
