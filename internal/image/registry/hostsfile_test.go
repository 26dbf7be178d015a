package registry

import "testing"

func FuzzHostsFile(f *testing.F) {
	f.Add([]byte("server = \"https://x\"\n[host.\"http://y\".header]\na = \"b\"\n"))
	f.Add([]byte("host = { a = { ca = [[1]], client = [['a','b']] } }"))
	f.Add([]byte("[[host.x]]\n"))
	f.Fuzz(func(t *testing.T, data []byte) { _, _, _ = parseHostsFile("/nowhere/hosts.toml", data) })
}
