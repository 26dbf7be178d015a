package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// result is all that was measured, as it is in the file of the results.
type result struct {
	Date    string                        `json:"date"`
	Machine string                        `json:"machine"`
	Kernel  string                        `json:"kernel"`
	Tools   []string                      `json:"tools"`
	Rounds  int                           `json:"rounds"`
	Names   []string                      `json:"names"`  // of the subjects, in their order
	Cases   []string                      `json:"cases"`  // what was measured, in its order
	Values  map[string]map[string]samples `json:"values"` // by subject, then by case

	mu sync.Mutex
}

// samples are the measured values by their names, times in milliseconds. Several goroutines may add to one.
type samples map[string][]float64

var adding sync.Mutex

func (m samples) add(name string, d time.Duration) { m.value(name, float64(d.Microseconds())/1000) }

func (m samples) value(name string, v float64) {
	adding.Lock()
	defer adding.Unlock()
	m[name] = append(m[name], v)
}

func newResult(o options, t tools) *result {
	r := &result{Date: time.Now().UTC().Format("2006-01-02"), Rounds: o.rounds, Values: map[string]map[string]samples{}}
	var name unix.Utsname
	_ = unix.Uname(&name)
	r.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	r.Machine = fmt.Sprintf("%d processors, %s", runtime.NumCPU(), hierarchy())
	out, _ := exec.Command(t.bin+"/pinfoldd", "--version").Output()
	r.Tools = append(r.Tools, strings.TrimSpace(string(out)))
	out, _ = exec.Command(t.runc, "--version").Output()
	first, _, _ := strings.Cut(string(out), "\n")
	r.Tools = append(r.Tools, first, "CNI plugins bridge, host-local, portmap")
	return r
}

func hierarchy() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "cgroup v2"
	}
	return "cgroup v1"
}

// of returns where the values of a subject and case go.
func (r *result) of(subject, what string) samples {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Values[subject] == nil {
		r.Values[subject] = map[string]samples{}
		r.Names = append(r.Names, subject)
	}
	if !slices.Contains(r.Cases, what) {
		r.Cases = append(r.Cases, what)
	}
	if r.Values[subject][what] == nil {
		r.Values[subject][what] = samples{}
	}
	return r.Values[subject][what]
}

// quantile is the value below which that part of the values lies; 0 without values.
func quantile(values []float64, part float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}

func median(values []float64) float64 { return quantile(values, 0.5) }

func (r *result) write(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

func read(path string) (*result, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: run `make bench` first", err)
	}
	r := &result{}
	return r, json.Unmarshal(data, r)
}

// measures are the names of what was measured in a case, sorted.
func (r *result) measures(what string) []string {
	var names []string
	for _, subject := range r.Names {
		for name := range r.Values[subject][what] {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// times reports that the values of that name are times of calls, of which there are many.
func (r *result) times(what, name string) bool {
	for _, subject := range r.Names {
		if len(r.Values[subject][what][name]) > r.Rounds {
			return true
		}
	}
	return false
}

// table is the table of one case in Markdown. A time is its median, and the 90th and 99th of a hundred.
func (r *result) table(what string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |", what)
	for _, subject := range r.Names {
		fmt.Fprintf(&b, " %s |", subject)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(r.Names)) + "\n")
	for _, name := range r.measures(what) {
		unit := name
		if r.times(what, name) {
			unit += ", ms (p50 / p90 / p99)"
		}
		fmt.Fprintf(&b, "| %s |", unit)
		for _, subject := range r.Names {
			values := r.Values[subject][what][name]
			switch {
			case len(values) == 0:
				b.WriteString(" – |")
			case r.times(what, name):
				fmt.Fprintf(&b, " %s / %s / %s |", number(median(values)), number(quantile(values, 0.9)), number(quantile(values, 0.99)))
			default:
				fmt.Fprintf(&b, " %s |", number(median(values)))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// number has three digits that count.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// text is all tables.
func (r *result) text() string {
	var b strings.Builder
	for _, what := range r.Cases {
		b.WriteString(r.table(what) + "\n")
	}
	return b.String()
}
