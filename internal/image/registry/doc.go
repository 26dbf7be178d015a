// Package registry is a client of image registries. It asks what a reference names, and downloads blobs into the content
// store.
//
// The hosts of a registry come from hosts.toml (hostsfile.go, hostsdir.go). Repository.each asks one after another until
// one sends what is wanted. Digest and size of every answer are checked. A host that cannot be reached is remembered
// (hostStates): for a minute it is asked last, and it never blocks downloads from another host. Of containerd's libraries
// only the exchange of credentials is used: its client does not know pauses or unreachable hosts, and it reads
// answers of any length.
//
// Most of its tests are those of internal/image, which pull from a real registry.
package registry
