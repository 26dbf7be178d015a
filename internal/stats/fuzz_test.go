package stats

import (
	"math"
	"strings"
	"testing"
)

// Every file here is the kernel's, but a container may choose names and paths in some, and a newer
// kernel may write what we have not seen: no content may do more than give odd numbers.

func FuzzKeys(f *testing.F) {
	f.Add([]byte("anon 1\nfile 2\n\nx\ny z\nlow -1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k := keys(data)
		statV1(k)
		statV2(k)
		// What is found is what a reader of all lines finds first.
		want := map[string]uint64{}
		for line := range strings.Lines(string(data)) {
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if _, known := want[name]; !ok || known || name == "" {
				continue
			}
			want[name] = 0
			if n := parseNumber(value); n != nil {
				want[name] = *n
			}
		}
		for name, n := range want {
			if got := k.value(name); got != n {
				t.Errorf("%q is %d, not %d", name, got, n)
			}
		}
	})
}

func FuzzPressure(f *testing.F) {
	f.Add([]byte("some avg10=1.50 avg60=0.75 avg300=NaN total=3000000\nfull avg10=+Inf total=-1\n"))
	f.Add([]byte("some total=9223372036854775807"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := parsePressure(data)
		if p == nil {
			return
		}
		for _, s := range []Stall{p.Some, p.Full} {
			if s.Total < 0 || math.IsNaN(s.Avg10+s.Avg60+s.Avg300-s.Avg10-s.Avg60-s.Avg300) && !huge(s) {
				t.Errorf("%+v", s)
			}
		}
	})
}

func huge(s Stall) bool {
	const large = math.MaxFloat64 / 4
	return math.Abs(s.Avg10) > large || math.Abs(s.Avg60) > large || math.Abs(s.Avg300) > large
}

func FuzzIOStat(f *testing.F) {
	f.Add([]byte("8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16\n:1 rbytes=1\n"))
	f.Fuzz(func(_ *testing.T, data []byte) { parseIOStat(data) })
}

func FuzzBlkio(f *testing.F) {
	f.Add([]byte("8:0 Read 1\n8:0 Total 1\nTotal 1\n"), []byte("8:0 Write 2\n9:9 Read x\n"))
	f.Fuzz(func(t *testing.T, bytes, operations []byte) {
		seen := map[[2]uint64]bool{}
		for _, d := range parseBlkio(bytes, operations) {
			if key := [2]uint64{d.Major, d.Minor}; seen[key] {
				t.Errorf("device %d:%d is there twice", d.Major, d.Minor)
			} else {
				seen[key] = true
			}
		}
	})
}

func FuzzInterfaces(f *testing.F) {
	f.Add([]byte("Inter-| Receive\n face |bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n a:b:1 2\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, i := range parseInterfaces(data) {
			if i.Name == "" || i.Name == "lo" {
				t.Errorf("interface %q", i.Name)
			}
		}
	})
}

func FuzzOpenFilesLimit(f *testing.F) {
	f.Add([]byte("Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 524288               files     \n"))
	f.Add([]byte("Max open files"))
	f.Fuzz(func(_ *testing.T, data []byte) { parseOpenFilesLimit(data) })
}
