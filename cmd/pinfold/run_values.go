package main

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/regular"
)

// values collects the values of a repeated flag, each parsed when it is read, so that a bad one is an
// error of usage.
type values[T any] struct {
	list  []T
	kind  string
	parse func(string) (T, error)
}

// String implements pflag.Value.
func (v *values[T]) String() string { return "" }

// Type implements pflag.Value.
func (v *values[T]) Type() string { return v.kind }

// Set implements pflag.Value.
func (v *values[T]) Set(text string) error {
	value, err := v.parse(text)
	if err == nil {
		v.list = append(v.list, value)
	}
	return err
}

// checkText refuses what a message of CRI cannot hold, or an argument of a process.
func checkText(text string) error {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return errors.New("want text in UTF-8, without zero bytes")
	}
	return nil
}

// propagations are the options of a volume that set how mounts pass between pod and node.
var propagations = map[string]runtimeapi.MountPropagation{
	"private": runtimeapi.MountPropagation_PROPAGATION_PRIVATE, "rprivate": runtimeapi.MountPropagation_PROPAGATION_PRIVATE,
	"slave": runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, "rslave": runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
	"shared": runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, "rshared": runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL,
}

// parseVolume reads HOST:CONTAINER[:OPTION[,OPTION]...]. A path with a colon cannot be written.
func parseVolume(text string) (*runtimeapi.Mount, error) {
	const form = "want HOST:CONTAINER[:OPTIONS], with paths that have no colon"
	parts := strings.Split(text, ":")
	if err := checkText(text); err != nil {
		return nil, err
	}
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return nil, errors.New(form)
	}
	host, target := parts[0], parts[1]
	if !filepath.IsAbs(host) {
		if host != "." && host != ".." && !strings.HasPrefix(host, "./") && !strings.HasPrefix(host, "../") {
			return nil, fmt.Errorf("%q is no path of the node: want one that begins with / or ./ (there are no named volumes)", host)
		}
		var err error
		if host, err = filepath.Abs(host); err != nil {
			return nil, err
		}
	}
	if !filepath.IsAbs(target) || filepath.Clean(target) == "/" {
		return nil, fmt.Errorf("%q is no place in the container: want an absolute path that is not /", target)
	}
	m := &runtimeapi.Mount{HostPath: host, ContainerPath: target}
	if len(parts) == 2 {
		return m, nil
	}
	var access, propagation string
	for option := range strings.SplitSeq(parts[2], ",") {
		p, isPropagation := propagations[option]
		switch {
		case (option == "ro" || option == "rw") && access == "":
			access, m.Readonly = option, option == "ro"
		case isPropagation && propagation == "":
			propagation, m.Propagation = option, p
		default:
			return nil, fmt.Errorf("option %q of a volume: want ro or rw, and one of private, slave, shared, rprivate, rslave, rshared", option)
		}
	}
	return m, nil
}

// parsePort reads [IP:]HOST:CONTAINER[/PROTOCOL].
func parsePort(text string) (*runtimeapi.PortMapping, error) {
	const form = "want [IP:]HOST:CONTAINER[/tcp|udp|sctp], with ports from 1 to 65535"
	ports, protocol, given := strings.Cut(text, "/")
	if !given {
		protocol = "tcp"
	}
	number, known := runtimeapi.Protocol_value[strings.ToUpper(protocol)]
	last := strings.LastIndexByte(ports, ':')
	if !known || last < 0 {
		return nil, errors.New(form)
	}
	m := &runtimeapi.PortMapping{Protocol: runtimeapi.Protocol(number)}
	host := ports[:last]
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		ip := host[:i]
		host = host[i+1:]
		if strings.HasPrefix(ip, "[") && strings.HasSuffix(ip, "]") {
			ip = ip[1 : len(ip)-1]
		} else if strings.Contains(ip, ":") {
			return nil, errors.New("want brackets around an IPv6 address: [::1]:8080:80")
		}
		addr, err := netip.ParseAddr(ip)
		if err != nil || addr.Zone() != "" {
			return nil, fmt.Errorf("%q is not an IP address", ip)
		}
		m.HostIp = addr.String()
	}
	from, err1 := parsePortNumber(host)
	to, err2 := parsePortNumber(ports[last+1:])
	if err1 != nil || err2 != nil {
		return nil, errors.New(form)
	}
	m.HostPort, m.ContainerPort = from, to
	return m, nil
}

func parsePortNumber(text string) (int32, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && (n == 0 || text[0] == '+') {
		err = strconv.ErrRange
	}
	return int32(n), err
}

// parseEnv reads KEY=VALUE, or KEY for the value that this command has in its own environment. nil if
// it has none.
func parseEnv(text string) (*runtimeapi.KeyValue, error) {
	key, value, given := strings.Cut(text, "=")
	if key == "" || strings.ContainsAny(key, " \t\n") {
		return nil, errors.New("want KEY=VALUE, or KEY")
	}
	if err := checkText(key); err != nil {
		return nil, err
	}
	if !given {
		if value, given = os.LookupEnv(key); !given {
			return nil, nil
		}
	}
	if strings.ContainsRune(value, 0) {
		return nil, errors.New("the value has a zero byte")
	}
	return &runtimeapi.KeyValue{Key: key, Value: []byte(value)}, nil
}

// maxEnvFile is the largest file of --env-file, in bytes.
const maxEnvFile = 1 << 20

// readEnvFile reads lines as of --env. Empty lines and lines that begin with # are left out. Errors
// do not show the line, which may be a secret.
func readEnvFile(file string) ([]*runtimeapi.KeyValue, error) {
	data, err := regular.Read(file, maxEnvFile)
	if err != nil {
		return nil, err
	}
	var list []*runtimeapi.KeyValue
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimLeft(strings.TrimRight(line, "\r\n"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		variable, err := parseEnv(line)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", file, number, err)
		}
		if variable != nil {
			list = append(list, variable)
		}
	}
	return list, nil
}

// label is one label of a pod.
type label struct{ key, value string }

func parseLabel(text string) (label, error) {
	key, value, given := strings.Cut(text, "=")
	if err := checkText(text); err != nil {
		return label{}, err
	}
	if !given || key == "" || key == ownLabel {
		return label{}, fmt.Errorf("want KEY=VALUE, with a key that is not %s", ownLabel)
	}
	return label{key, value}, nil
}

// memory is a number of bytes, written as in a pod's specification.
type memory int64

// minMemory is the least memory that --memory takes: with less, no container starts.
const minMemory = 6 << 20

// String implements pflag.Value.
func (m *memory) String() string {
	if *m == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*m), 10)
}

// Type implements pflag.Value.
func (m *memory) Type() string { return "size" }

var sizeForm = regexp.MustCompile(`^([0-9]{1,20}(?:\.[0-9]{1,20})?)(?:([eE][0-9]{1,2})|([kMGTPE]i?|Ki))?$`)

// Set implements pflag.Value.
func (m *memory) Set(text string) error {
	parts := sizeForm.FindStringSubmatch(text)
	if parts == nil {
		if strings.HasSuffix(text, "m") || strings.HasSuffix(text, "g") || strings.HasSuffix(text, "b") {
			return errors.New("want a size as in a pod's specification: 256Mi (of 1024) or 256M (of 1000), not 256m")
		}
		return errors.New("want a size as 268435456, 256Mi, 256M or 1.5Gi")
	}
	value, ok := new(big.Rat).SetString(parts[1] + parts[2])
	if !ok {
		return errors.New("not a number")
	}
	base := int64(1000)
	if strings.HasSuffix(parts[3], "i") {
		base = 1024
	}
	if parts[3] != "" {
		power := strings.Index("KMGTPE", strings.ToUpper(parts[3][:1])) + 1
		unit := new(big.Int).Exp(big.NewInt(base), big.NewInt(int64(power)), nil)
		value.Mul(value, new(big.Rat).SetInt(unit))
	}
	bytes := new(big.Int).Div(value.Num(), value.Denom())
	if !bytes.IsInt64() {
		return errors.New("too large")
	}
	if bytes.Int64() < minMemory {
		return errors.New("less than 6Mi: no container starts with that")
	}
	*m = memory(bytes.Int64())
	return nil
}

// cpus is a number of processors, in thousandths.
type cpus int64

// cpuPeriod is the period of the kernel's quota of processor time, in microseconds.
const cpuPeriod = 100_000

// String implements pflag.Value.
func (c *cpus) String() string {
	if *c == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*c)/1000, 'f', -1, 64)
}

// Type implements pflag.Value.
func (c *cpus) Type() string { return "number" }

var cpuForm = regexp.MustCompile(`^[0-9]{1,5}(\.[0-9]{1,9})?$`)

// Set implements pflag.Value.
func (c *cpus) Set(text string) error {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || !cpuForm.MatchString(text) || value < 0.01 || value > 10_000 {
		return errors.New("want a number of processors from 0.01 to 10000, as 1.5")
	}
	*c = cpus(value*1000 + 0.5)
	return nil
}

// quota is the processor time in each period, in microseconds.
func (c *cpus) quota() int64 { return int64(*c) * cpuPeriod / 1000 }

// user is who runs the container's process: an id or a name of the image, and maybe a group's id.
type user struct {
	text  string
	uid   *runtimeapi.Int64Value
	name  string
	group *runtimeapi.Int64Value
}

// String implements pflag.Value.
func (u *user) String() string { return u.text }

// Type implements pflag.Value.
func (u *user) Type() string { return "user" }

// Set implements pflag.Value.
func (u *user) Set(text string) error {
	who, group, given := strings.Cut(text, ":")
	*u = user{text: text}
	if err := checkText(text); err != nil {
		return err
	}
	switch id, err := parseID(who); {
	case err == nil:
		u.uid = id
	case who == "" || strings.ContainsAny(who[:1], "+-0123456789") || strings.ContainsAny(who, " \t\n/"):
		return errors.New("want UID[:GID] or NAME[:GID], with ids from 0 to 4294967294")
	default:
		u.name = who
	}
	if !given {
		return nil
	}
	id, err := parseID(group)
	if err != nil {
		return errors.New("want the group as a number: CRI has no names of groups")
	}
	u.group = id
	return nil
}

func parseID(text string) (*runtimeapi.Int64Value, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 1<<32-1 || text[0] == '+' {
		return nil, strconv.ErrRange
	}
	return &runtimeapi.Int64Value{Value: int64(id)}, nil
}

// entrypoint is what stands in place of the image's entrypoint; empty and given for none.
type entrypoint struct {
	program string
	given   bool
}

// String implements pflag.Value.
func (e *entrypoint) String() string { return e.program }

// Type implements pflag.Value.
func (e *entrypoint) Type() string { return "program" }

// Set implements pflag.Value.
func (e *entrypoint) Set(text string) error {
	*e = entrypoint{text, true}
	return nil
}
