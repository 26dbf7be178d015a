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
// A layer is unpacked into layers/.tmp-*, flushed with syncfs(2) and renamed. So a layer that exists is complete. It
// has overlay's own form of deletions (device 0:0, trusted.overlay.opaque). All images share it. It is never written to
// again and never chowned: pods see it through idmapped mounts. Device nodes, file capabilities and set-user-ID bits
// are kept as in the archive; the mount of a layer decides what they can do.
//
// A record is written to a temporary file, flushed and renamed before the image is listed. A removal unlinks the
// record, then removes the bytes. It needs no space on the disk. While containers hold the image, the record has no
// names ("removed"). On a full disk it is renamed to <hex>.json.removed. It is unlinked with the last hold. RemoveUnused
// removes layers and blobs that no record names.
//
// # Packages below this one
//
//	reference  names: references, digests, names of files
//	registry   the client of registries: hosts.toml, credentials, downloads
//	blob       the content store, with one lock for each blob
//	layer      unpacks layers and keeps them
//	tarfile    opens tars that may be compressed
//	secret     keeps credentials out of messages
//	keylock    locks by key
//
// Every text that leaves Pull was scrubbed (package secret).
//
// # In memory
//
// The store consists of parts. Each has its own state and its own lock:
//
//	blobs       blobs and downloads in progress, on the disk
//	layers      unpacked layers, on the disk
//	records     records of images, on the disk
//	roots       what must stay: listed images, removed images with a hold, leases of pulls and loads
//	collector   removes the layers and blobs that no root needs
//	registries  asks registries; remembers hosts
//	pulls       pulls in progress; equal ones run once
//	spools      archives that are being received
//
// Readers (List, Resolve) see an immutable catalog and never wait. Locks, in the order in which they are taken:
//
//	Store.loads       one Load at a time
//	layers.Lock(chain), blobs.Lock(digest)   one layer or blob; the only ones held during I/O on the network
//	collector.removing[chain]   one deletion of a layer
//	blobs.Import      held by Load, which writes blobs without a lease; read-held to remove a blob
//	Store.writing     one change of records at a time; held while a record is flushed
//	roots.mu          holds, leases, removed images; the only I/O under it is the renaming of an unused layer
//
// A pull or load first leases a layer or blob (see lease), then checks whether it exists. Unused data is removed under
// roots.mu after a check of the leases. So what a pull has found stays.
package image
