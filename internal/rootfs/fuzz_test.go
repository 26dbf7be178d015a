package rootfs

import (
	"strings"
	"testing"
)

// FuzzMount: file names in a line of mountinfo are a container's to choose; they never make it another mount.
func FuzzMount(f *testing.F) {
	f.Add("29 1 0:26 / /run/a\\040b rw,nosuid shared:5 - tmpfs tmpfs rw,mode=755", " - x")
	f.Add("30 29 0:27 /a /b ro - overlay over\\134lay rw", "\\")
	f.Add("x - y", "\\777")
	f.Fuzz(func(t *testing.T, line, name string) {
		_, _ = parseMount(line)
		// As the kernel writes it (seq_path escapes these four).
		escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(name)
		m, err := parseMount("30 29 0:27 / /" + escaped + " rw shared:1 master:2 - tmpfs " + escaped + "x rw")
		if err != nil || m.point != "/"+name || m.source != name+"x" || m.optional != "shared:1 master:2" {
			t.Fatalf("a mount on %q is read as %+v, %v", "/"+name, m, err)
		}
	})
}
