// Package mountinfo reads the mount table of this process's mount namespace (proc_pid_mountinfo(5)). It is the only
// parser of it. Watch counts its changes. It uses the standard library and x/sys alone, since pinder links it.
package mountinfo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Mount is one line of mountinfo.
type Mount struct {
	ID, Parent uint64
	// Point is where it is mounted, without escapes.
	Point string
	// Options are those of the mount, "idmapped" among them.
	Options string
	// Optional are the fields on propagation: "shared:1 master:2", "unbindable".
	Optional string
	// Type is the type of the file system.
	Type string
	// Source is what is mounted, without escapes.
	Source string
	// SuperOptions are those of the file system.
	SuperOptions string
}

// Find returns the mounts of this process's mount namespace for which keep is true, parents before children.
func Find(keep func(Mount) bool) ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	mounts, err := Parse(f, keep)
	return mounts, errors.Join(err, f.Close())
}

// ErrLine is the class of the error of a line that the kernel would not write.
var ErrLine = errors.New("unexpected line")

// Parse returns the mounts in lines of mountinfo for which keep is true. A line that the kernel would not write is an
// error, of class ErrLine: a mount that is left out would never be unmounted. The mounts of all other lines come with it,
// for a caller that looks for something else.
func Parse(r io.Reader, keep func(Mount) bool) ([]Mount, error) {
	var found []Mount
	var odd error // the first such line
	// Lines have no bound: one holds all the options of an overlay, which may be a page and more.
	for lines := bufio.NewReaderSize(r, 64<<10); ; {
		line, err := lines.ReadString('\n')
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			switch m, ok := parse(line); {
			case !ok && odd == nil:
				odd = fmt.Errorf("mountinfo: %w %.500q", ErrLine, line)
			case ok && keep(m):
				found = append(found, m)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return found, odd
		case err != nil:
			return nil, fmt.Errorf("read mountinfo: %w", err)
		}
	}
}

func parse(line string) (Mount, bool) {
	head, tail, ok := strings.Cut(line, " - ")
	if !ok {
		return Mount{}, false
	}
	// Not strings.Split: a node with many pods has thousands of lines, and some look at all of them.
	var h [6]string // the ID, the parent's, major:minor, the root, the mount point, the options
	for i := range h {
		if head == "" {
			return Mount{}, false
		}
		h[i], head, _ = strings.Cut(head, " ")
	}
	kind, tail, ok := strings.Cut(tail, " ")
	source, super, _ := strings.Cut(tail, " ")
	id, idErr := strconv.ParseUint(h[0], 10, 64)
	parent, parentErr := strconv.ParseUint(h[1], 10, 64)
	return Mount{
		ID: id, Parent: parent,
		Point:        unescape(h[4]),
		Options:      h[5],
		Optional:     head,
		Type:         kind,
		Source:       unescape(source),
		SuperOptions: super,
	}, ok && idErr == nil && parentErr == nil
}

// unescape undoes the kernel's \040 for blank, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
