package network

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// state is what the kernel and the files say, by part. What differs from run to run has other names in it: random names of
// interfaces and addresses of hardware.
type state map[string]string

func (s state) add(part, text string) {
	if text = strings.TrimSpace(text); text != "" {
		s[part] = text
	}
}

// addNetwork adds the namespace of the calling thread.
func (s state) addNetwork(where string, n *names) {
	batch := exec.Command("ip", "-j", "-d", "-batch", "-")
	batch.Stdin = strings.NewReader("link\naddr\nroute show table all\nrule\nneigh show nud permanent\n")
	out, err := batch.CombinedOutput()
	if err != nil {
		out = fmt.Appendln(out, err)
	}
	for i, list := range strings.SplitAfter(n.in(string(out)), "]\n") {
		s.add(fmt.Sprintf("%s: ip %d", where, i), listed(list))
	}
	s.add(where+": queues", listed(n.in(run("tc", "-j", "qdisc"))))
	if where != "node" {
		return
	}
	s.add(where+": vlans", listed(n.in(run("bridge", "-j", "vlan"))))
	for _, device := range filtered.FindAllStringSubmatch(run("tc", "qdisc"), -1) {
		for _, parent := range []string{"root", "ingress"} {
			s.add(where+": filters of "+n.in(device[1])+" "+parent, n.in(run("tc", "filter", "show", "dev", device[1], parent)))
		}
	}
	s.add(where+": iptables", n.in(saved(run("iptables-save"))))
	s.add(where+": ip6tables", n.in(saved(run("ip6tables-save"))))
	s.add(where+": nftables", n.in(ruleset(run("nft", "-s", "list", "ruleset"))))
}

// addSysctls adds the switches of the calling thread's namespace.
func (s state) addSysctls(where string, n *names) { s.add(where+": sysctls", sysctls(n)) }

// addFiles adds all files of the node.
func (s state) addFiles(n *names) {
	_ = filepath.WalkDir("/run", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, other := range []string{"bin", "net.d", "pods"} {
			if path == filepath.Join(nodeDir, other) {
				return filepath.SkipDir
			}
		}
		if !d.Type().IsRegular() || path == "/run/xtables.lock" {
			return nil
		}
		data, err := os.ReadFile(path)
		if strings.HasPrefix(path, filepath.Join(nodeDir, "cache")) {
			data = []byte(cacheText(data))
		}
		fi, _ := d.Info()
		s[fmt.Sprintf("file %s", path)] = fmt.Sprintf("%v %s", fi.Mode(), n.in(string(data)))
		return err
	})
}

// cacheText is a file of libcni's with the configuration readable.
func cacheText(data []byte) string {
	var file map[string]any
	if json.Unmarshal(data, &file) != nil {
		return string(data)
	}
	out, _ := json.MarshalIndent(file, "", " ")
	return string(out)
}

// run is what a command prints; an error is printed, too.
func run(command ...string) string {
	var out, said bytes.Buffer
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(&out, "\n%s: %v: %s", command[0], err, said.String())
	}
	return out.String()
}

// names replaces random names.
type names struct{ replacer *strings.Replacer }

var (
	veths     = regexp.MustCompile(`\bveth[0-9a-f]{8}\b`)
	filtered  = regexp.MustCompile(`(?m)^qdisc (?:ingress|clsact|tbf) \S+ dev (\S+)`)
	macs      = regexp.MustCompile(`\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b`)
	linkLocal = regexp.MustCompile(`\bfe80::[0-9a-f:]+`)
	counters  = regexp.MustCompile(`counter packets \d+ bytes \d+`)
	packets   = regexp.MustCompile(`\[\d+:\d+\]`)
	moving    = regexp.MustCompile(`^"(NO-CARRIER|LOWER_UP|linkdown)"$|fe80::`)
	handles   = regexp.MustCompile(`\b(fh|chain|pref|handle) [0-9a-f:x]+`)
)

// learn numbers the random names of the calling thread's namespace in the order in which they were made.
func (n *names) learn() {
	var pairs []string
	for i, name := range slices.Compact(veths.FindAllString(run("ip", "-o", "link"), -1)) {
		pairs = append(pairs, name, fmt.Sprintf("veth-%d", i+1))
	}
	n.replacer = strings.NewReplacer(pairs...)
}

// givenMAC begins the addresses that a configuration of the table asks for.
const givenMAC = "c2:11:22:"

func (n *names) in(text string) string {
	text = n.replacer.Replace(text)
	text = macs.ReplaceAllStringFunc(text, func(mac string) string {
		if strings.HasPrefix(mac, givenMAC) || mac == "ff:ff:ff:ff:ff:ff" || mac == "00:00:00:00:00:00" {
			return mac
		}
		return "MAC"
	})
	return linkLocal.ReplaceAllString(veths.ReplaceAllString(text, "veth-gone"), "fe80::MAC")
}

// changing are keys that differ from moment to moment.
var changing = []string{
	"ifindex", "link_index", "link_netnsid", "bridge_id", "root_id", "designated_bridge", "designated_root", "hello_timer", "tcn_timer",
	"topology_change_timer", "gc_timer", "hold_timer", "message_age_timer", "forward_delay_timer", "valid_life_time", "preferred_life_time",
	"handle", "expires", "cache", "used", "age", "topology_change", "topology_change_detected", "port_id", "port_no", "no", "id", "parent",
	// These come a moment after a change.
	"tentative", "optimistic", "operstate", "state",
}

// listed is a list in JSON with a line for each element, sorted, without what changes.
func listed(text string) string {
	var list []map[string]any
	if strings.TrimSpace(text) == "" {
		return ""
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return text
	}
	var lines []string
	for _, one := range list {
		if dst := fmt.Sprint(one["dst"]); strings.HasPrefix(dst, "fe80:") || strings.HasPrefix(dst, "ff00:") ||
			slices.Contains([]any{"local", "anycast"}, one["type"]) && strings.Contains(dst, ":") {
			continue // the kernel makes them when it has looked for others with the address
		}
		if one["multicast"] != nil || fmt.Sprint(one["dst"]) == "multicast" || one["kind"] == "noqueue" {
			continue
		}
		out, _ := json.Marshal(steady(one))
		lines = append(lines, string(out))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func steady(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range changing {
			if _, is := v[key].(map[string]any); !is {
				delete(v, key)
			}
		}
		for key, inner := range v {
			v[key] = steady(inner)
		}
	case []any:
		var texts []string
		for i := range v {
			out, _ := json.Marshal(steady(v[i]))
			if moving.Match(out) {
				continue
			}
			texts = append(texts, string(out))
		}
		slices.Sort(texts)
		return texts
	}
	return value
}

func indented(data []byte) string {
	var out bytes.Buffer
	var value map[string]any
	_ = json.Unmarshal(data, &value)
	sorted, _ := json.Marshal(value)
	_ = json.Indent(&out, sorted, "", " ")
	return out.String()
}

// sysctls are those of interfaces, and those that plugins switch.
func sysctls(n *names) string {
	var lines []string
	for _, root := range []string{"/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/core"} {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == "stable_secret" {
				return nil // not all can be read
			}
			if data, err := os.ReadFile(path); err == nil {
				lines = append(lines, n.in(strings.TrimPrefix(path, "/proc/sys/net/")+" "+strings.TrimSpace(string(data))))
			}
			return nil
		})
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// saved is what iptables-save prints, without comments, counters and tables that have nothing in them.
func saved(text string) string {
	var out []string
	var table []string
	full := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(packets.ReplaceAllString(line, ""))
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "*"):
			table, full = []string{line}, false
		case line == "COMMIT":
			if full {
				out = append(out, table...)
			}
		default:
			full = full || strings.HasPrefix(line, "-A") || strings.HasSuffix(line, " -")
			table = append(table, line)
		}
	}
	// The order of chains has no meaning; that of rules in a chain has.
	slices.SortStableFunc(out, func(a, b string) int { return strings.Compare(chainOf(a), chainOf(b)) })
	return strings.Join(out, "\n")
}

func chainOf(line string) string {
	if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "-A" {
		return "-A " + fields[1]
	}
	return line
}

// ruleset is what nft lists, without the tables of iptables.
func ruleset(text string) string {
	tables := map[string]string{}
	for _, table := range strings.Split("\n"+counters.ReplaceAllString(handles.ReplaceAllStringFunc(text, func(s string) string {
		if strings.HasPrefix(s, "handle") {
			return "handle"
		}
		return s
	}), "counter"), "\ntable ") {
		name, _, _ := strings.Cut(table, " {")
		if slices.Contains([]string{"", "ip nat", "ip6 nat", "ip filter", "ip6 filter", "ip mangle", "ip6 mangle", "ip raw", "ip6 raw"}, strings.TrimSpace(name)) {
			continue
		}
		tables[name] = "table " + table
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		out = append(out, tables[name])
	}
	return strings.Join(out, "\n")
}
