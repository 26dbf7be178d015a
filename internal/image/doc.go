// Package image is the node's image store: it pulls images from registries, loads them from archives, unpacks
// every layer once, and says which directories a container's root file system is made of.
//
// # On disk
//
// Everything is below Config.Root, readable by root only (layers contain set-user-ID files):
//
//	content/              containerd's local content store: manifests, configurations, downloads in progress
//	layers/<hex>/fs       an unpacked layer, named by the hex part of its chain ID
//	layers/<hex>/layer.json  what is known of it: diff ID, bytes, inodes, greatest uid and gid
//	layers/.tmp-*         a layer being unpacked or removed
//	records/<hex>.json    one record per image, named by the digest of its configuration
//	quarantine/           records that could not be used
//
// A layer is unpacked into layers/.tmp-*, flushed with syncfs(2) and renamed, so it is complete by existing.
// It holds overlay's own form of deletions (device 0:0, trusted.overlay.opaque), is shared by all images, never
// written to again and never chowned: pods see it through idmapped mounts. Device nodes, file capabilities and
// set-user-ID bits are kept as the archive has them; what they are worth is decided where a layer is mounted.
//
// A record is written to a temporary file, flushed and renamed before the image is listed. Removal unlinks the
// record, then deletes the bytes, and needs no space. While containers hold the image, the record is written without
// names ("removed") or, on a full disk, renamed to <hex>.json.removed, and goes with the last hold. A
// layer or blob that no record names is garbage, and Sweep deletes it.
//
// # Registries
//
// The hosts of a registry come from hosts.toml (hostsfile.go, hostsdir.go). Each is asked in turn (registry.each)
// until one sends what was wanted, which is checked by digest and size for each of them. A host that is not to be
// reached is remembered (hostStates), asked last for a minute, and never holds the downloads of another. Of containerd's
// libraries only the exchange of credentials is used: its client knows neither pauses nor sick hosts, and
// reads answers without an end. No text leaves Pull that scrub has not been over.
//
// # In memory
//
// Readers (List, Resolve) see an immutable catalog and never wait. Locks, in the order they may be taken:
//
//	Store.loads       one Load at a time
//	Store.layerLocks[chain], Store.blobLocks[digest]   one layer or blob; the only ones held during I/O on the network
//	Store.dropLocks[chain]   one deletion of a layer
//	Store.blobGate    held by Load, which puts blobs into the content store unpinned; read-held to delete one
//	Store.writing     one change of records at a time; held while a record is flushed
//	Store.mu          holds, pins, removed images; never held during I/O but the renaming of an unwanted layer
//
// A layer or blob in use by a pull or load is pinned (see lease) before it is looked for, and garbage is taken
// away under Store.mu after the pins have been looked at, so what a pull has found stays.
package image
