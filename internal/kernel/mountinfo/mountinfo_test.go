package mountinfo

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestALineIsReadWithAllItsFields(t *testing.T) {
	for line, want := range map[string]Mount{
		`29 1 0:26 / /run/a\040b rw,nosuid shared:5 master:2 - tmpfs none rw,mode=755`: {
			ID: 29, Parent: 1, Point: "/run/a b", Options: "rw,nosuid", Optional: "shared:5 master:2",
			Type: "tmpfs", Source: "none", SuperOptions: "rw,mode=755",
		},
		`30 29 0:27 /a /b ro - overlay over\134lay rw`: {
			ID: 30, Parent: 29, Point: "/b", Options: "ro", Type: "overlay", Source: `over\lay`, SuperOptions: "rw",
		},
		// mount(2) takes an empty source, and the kernel then shows an empty field.
		`31 29 0:28 / /c rw - tmpfs  rw`: {ID: 31, Parent: 29, Point: "/c", Options: "rw", Type: "tmpfs", SuperOptions: "rw"},
	} {
		got, err := Parse(strings.NewReader(line+"\n"), all)
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("%s: %+v, %v; want %+v", line, got, err, want)
		}
	}
}

func TestALineThatTheKernelDoesNotWriteIsAnError(t *testing.T) {
	for _, line := range []string{"rubbish", "29 1 0:26 / /a rw tmpfs none rw", "x 1 0:26 / /a rw - tmpfs none rw", "29 x 0:26 / /a rw - tmpfs none rw", "29 1 0:26 / /a - tmpfs none rw"} {
		if got, err := Parse(strings.NewReader("28 1 0:26 / /ok rw - tmpfs none rw\n"+line), all); !errors.Is(err, ErrLine) || !strings.Contains(err.Error(), line) || len(got) != 1 {
			t.Errorf("%q is read as %+v, %v", line, got, err)
		}
	}
}

func TestALongLineIsRead(t *testing.T) {
	options := "rw,lowerdir=" + strings.Repeat("/x:", 1<<20)
	got, err := Parse(strings.NewReader("28 1 0:26 / /ok rw - overlay overlay "+options+"\n29 1 0:26 / /ok rw - tmpfs none rw"), all)
	if err != nil || len(got) != 2 || got[0].SuperOptions != options {
		t.Fatalf("%d mounts, %v", len(got), err)
	}
}

func all(Mount) bool { return true }

func TestFindKeepsWhatItIsAskedFor(t *testing.T) {
	mounts, err := Find(func(m Mount) bool { return m.Point == "/" })
	if err != nil || len(mounts) == 0 || slices.ContainsFunc(mounts, func(m Mount) bool { return m.Point != "/" }) {
		t.Fatalf("%+v, %v", mounts, err)
	}
}

// FuzzParse: file names in a line of mountinfo are a container's to choose; they never make it another mount.
func FuzzParse(f *testing.F) {
	f.Add("29 1 0:26 / /run/a\\040b rw,nosuid shared:5 - tmpfs tmpfs rw,mode=755", " - x")
	f.Add("30 29 0:27 /a /b ro - overlay over\\134lay rw", "\\")
	f.Add("x - y", "\\777")
	f.Fuzz(func(t *testing.T, line, name string) {
		_, _ = Parse(strings.NewReader(line), all)
		// As the kernel writes it (seq_path escapes these four).
		escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(name)
		m, ok := parse("30 29 0:27 / /" + escaped + " rw shared:1 master:2 - tmpfs " + escaped + "x rw")
		if !ok || m.Point != "/"+name || m.Source != name+"x" || m.Optional != "shared:1 master:2" {
			t.Fatalf("a mount on %q is read as %+v", "/"+name, m)
		}
	})
}

func TestEachFieldOfALineIsInItsPlace(t *testing.T) {
	for line, want := range map[string]Mount{
		`36 35 98:0 /mnt1 /mnt\0402 rw,noatime shared:1 master:2 - ext3 /dev/ro\011ot rw,errors=continue`: {
			ID: 36, Parent: 35, Point: "/mnt 2", Options: "rw,noatime", Optional: "shared:1 master:2", Type: "ext3", Source: "/dev/ro\tot", SuperOptions: "rw,errors=continue",
		},
		`1 2 0:3 / / ro - tmpfs none rw`:  {ID: 1, Parent: 2, Point: "/", Options: "ro", Type: "tmpfs", Source: "none", SuperOptions: "rw"},
		`1 2 0:3 / / ro - tmpfs  rw`:      {ID: 1, Parent: 2, Point: "/", Options: "ro", Type: "tmpfs", SuperOptions: "rw"},
		`1 2 0:3 / / ro - tmpfs none a b`: {ID: 1, Parent: 2, Point: "/", Options: "ro", Type: "tmpfs", Source: "none", SuperOptions: "a b"},
	} {
		if got, ok := parse(line); !ok || got != want {
			t.Errorf("%q is %+v %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "1 2 0:3 / / - tmpfs none rw", "1 2 0:3 / / ro", "x 2 0:3 / / ro - tmpfs none rw", "1 2 0:3 / / ro - tmpfs"} {
		if got, ok := parse(line); ok {
			t.Errorf("%q is %+v", line, got)
		}
	}
}
