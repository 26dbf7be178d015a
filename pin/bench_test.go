package pin

import (
	"path/filepath"
	"testing"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

func BenchmarkCreate(b *testing.B) {
	testroot.Need(b)
	for name, c := range map[string]struct {
		m     *Mappings
		kinds Kind
	}{
		"user":         {&testMappings, User},
		"user+ipc+uts": {&testMappings, User | IPC | UTS},
		"all":          {&testMappings, all},
		"host-owned":   {nil, Net | IPC | UTS},
		"uts":          {nil, UTS},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				set, err := Create(c.m, c.kinds)
				if err != nil {
					b.Fatal(err)
				}
				set.Close()
			}
		})
	}
}

func BenchmarkCreateAndPin(b *testing.B) {
	testroot.Need(b)
	for name, m := range map[string]*Mappings{"user": &testMappings, "host-owned": nil} {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "net")
			for b.Loop() {
				set, err := Create(m, Net|IPC|UTS)
				if err != nil {
					b.Fatal(err)
				}
				if err := set.Net.Pin(path); err != nil {
					b.Fatal(err)
				}
				set.Close()
				b.StopTimer()
				if err := Unpin(path); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
