package entry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// ErrRuntime is the error of everything that is left to the OCI runtime. Its text says what that is.
var ErrRuntime = errors.New("the OCI runtime does it")

func leave(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrRuntime)
}

// Process has the fields of an OCI process, as the runtime specification names them.
//
// wide: it mirrors the specification's type
type Process struct {
	Terminal        bool            `json:"terminal"`
	ConsoleSize     *Size           `json:"consoleSize"`
	User            User            `json:"user"`
	Args            []string        `json:"args"`
	CommandLine     string          `json:"commandLine"` // Windows
	Env             []string        `json:"env"`
	Cwd             string          `json:"cwd"`
	Capabilities    *Capabilities   `json:"capabilities"`
	Rlimits         []Rlimit        `json:"rlimits"`
	NoNewPrivileges bool            `json:"noNewPrivileges"`
	ApparmorProfile string          `json:"apparmorProfile"`
	OOMScoreAdj     *int            `json:"oomScoreAdj"`
	Scheduler       json.RawMessage `json:"scheduler"`
	SelinuxLabel    string          `json:"selinuxLabel"`
	IOPriority      json.RawMessage `json:"ioPriority"`
	ExecCPUAffinity json.RawMessage `json:"execCPUAffinity"`
}

// Size is a terminal's, in character cells.
type Size struct {
	Height uint16 `json:"height"`
	Width  uint16 `json:"width"`
}

// User has IDs of the container.
type User struct {
	UID            uint32   `json:"uid"`
	GID            uint32   `json:"gid"`
	Umask          *uint32  `json:"umask"`
	AdditionalGIDs []uint32 `json:"additionalGids"`
	Username       string   `json:"username"` // Windows
}

// Capabilities are sets of names: "CAP_CHOWN".
type Capabilities struct {
	Bounding    []string `json:"bounding"`
	Effective   []string `json:"effective"`
	Inheritable []string `json:"inheritable"`
	Permitted   []string `json:"permitted"`
	Ambient     []string `json:"ambient"`
}

// Rlimit is a resource limit, "RLIMIT_NOFILE".
type Rlimit struct {
	Type string `json:"type"`
	Hard uint64 `json:"hard"`
	Soft uint64 `json:"soft"`
}

// ParseProcess reads an OCI process. ErrRuntime if it has a field that is unknown here, or one that is known and left
// to the runtime.
func ParseProcess(data []byte) (*Process, error) {
	var p Process
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		return nil, leave("the process: %v", err)
	}
	if decoder.More() {
		return nil, leave("the process: more than one value")
	}
	return &p, p.check()
}

func (p *Process) check() error {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"commandLine", p.CommandLine != ""},
		{"username", p.User.Username != ""},
		{"scheduler", given(p.Scheduler)},
		{"ioPriority", given(p.IOPriority)},
		{"execCPUAffinity", given(p.ExecCPUAffinity)},
		{"selinuxLabel", p.SelinuxLabel != ""},
		{"no capabilities", p.Capabilities == nil},
	} {
		if f.set {
			return leave("the process has %s", f.name)
		}
	}
	if len(p.Args) == 0 || p.Args[0] == "" || !strings.HasPrefix(p.Cwd, "/") {
		return leave("the process has no program or no absolute directory")
	}
	for _, s := range slices.Concat(p.Args, p.Env, []string{p.Cwd, p.ApparmorProfile}) {
		if strings.IndexByte(s, 0) >= 0 {
			return leave("a text of the process has a NUL byte")
		}
	}
	for _, l := range p.Rlimits {
		if _, ok := wire.RlimitResources[l.Type]; !ok {
			return leave("%q is not a resource limit", l.Type)
		}
	}
	return nil
}

func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// environment is what the program gets. As with runc, the last entry of a variable counts, and HOME is not empty. The
// second result says that HOME is missing: it is that of the user in the container's /etc/passwd.
func environment(env []string) (list []string, homeless bool, err error) {
	seen := map[string]bool{}
	homeless = true
	for _, entry := range slices.Backward(env) {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return nil, false, leave("%q is no environment variable", entry)
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		if name == "HOME" && value == "" {
			continue
		}
		homeless = homeless && name != "HOME"
		list = append(list, entry)
	}
	slices.Reverse(list)
	return list, homeless, nil
}

// programs are the files that may be the program, in their order.
func programs(name string, env []string) ([]string, error) {
	if strings.Contains(name, "/") {
		return []string{name}, nil
	}
	for _, entry := range env {
		dirs, ok := strings.CutPrefix(entry, "PATH=")
		if !ok {
			continue
		}
		var list []string
		for dir := range strings.SplitSeq(dirs, ":") {
			if !strings.HasPrefix(dir, "/") {
				return nil, leave("PATH has %q, which is not absolute", dir)
			}
			list = append(list, strings.TrimRight(dir, "/")+"/"+name)
		}
		if len(list) > maxPrograms {
			return nil, leave("PATH has %d directories", len(list))
		}
		return list, nil
	}
	return nil, leave("there is no PATH")
}

// maxPrograms is how many directories of PATH are looked into.
const maxPrograms = 64
