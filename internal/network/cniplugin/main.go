// Command cniplugin is a CNI plugin for tests that does what it is told. It is
// never installed.
//
// The network configuration names a directory, "control". For each verb the
// file of that name in it (ADD, DEL, STATUS, GC, VERSION), when there, holds
// one line: what to do. Without a file the plugin does its work: ADD answers
// with the "address" of the configuration, or with prevResult when there is
// one, and takes a lease, the file leases/<container>-<ifname>; DEL removes it.
//
//	ok                   the work
//	fail CODE TEXT       answer with a CNI error
//	exit N TEXT          print TEXT to standard error and end with status N
//	print N TEXT         print TEXT to standard output and end with status N
//	hang                 never end
//	late DURATION        the work, after a while
//	signal N             die of the signal
//	flood                print for ever
//	fork-hang            start a child that never ends, and never end
//	leak                 the work, with a child left that holds the output open
//	daemon               the work, with a child left that holds nothing
//	fork-lease DURATION  start a child that takes a lease later, and never end
//
// Children leave the process group and the session. Each call appends a line
// of JSON to the file calls, each process its pid to the file
// pids, and a child's pid goes to the file children as well. Used as an
// IPAM plugin, it reads "control" and "address" from the ipam section.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// section is what the plugin reads of its configuration.
type section struct {
	Type    string `json:"type"`
	Control string `json:"control"`
	Address string `json:"address"`
}

type config struct {
	section
	CNIVersion string          `json:"cniVersion"`
	PrevResult json.RawMessage `json:"prevResult"`
	IPAM       section         `json:"ipam"`
}

type plugin struct {
	section
	conf config
	verb string
}

func main() {
	if len(os.Args) > 1 {
		child(os.Args[1:])
		return
	}
	stdin, err := io.ReadAll(os.Stdin)
	check(err)
	p := plugin{verb: os.Getenv("CNI_COMMAND")}
	if p.verb == "VERSION" {
		fmt.Println(`{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}`)
		return
	}
	check(json.Unmarshal(stdin, &p.conf))
	p.section = p.conf.section
	if p.conf.IPAM.Control != "" && p.Control == "" {
		p.section = p.conf.IPAM
	}
	p.note(stdin)
	p.act()
}

// note writes down the call.
func (p *plugin) note(stdin []byte) {
	appendLine(p.Control, "pids", strconv.Itoa(os.Getpid()))
	line, err := json.Marshal(map[string]any{
		"verb": p.verb, "container": os.Getenv("CNI_CONTAINERID"), "netns": os.Getenv("CNI_NETNS"),
		"ifname": os.Getenv("CNI_IFNAME"), "args": os.Getenv("CNI_ARGS"), "stdin": json.RawMessage(stdin),
	})
	check(err)
	appendLine(p.Control, "calls", string(line))
}

func (p *plugin) act() {
	order, _ := os.ReadFile(filepath.Join(p.Control, p.verb))
	word, rest, _ := strings.Cut(strings.TrimSpace(string(order)), " ")
	number, text, _ := strings.Cut(rest, " ")
	n, _ := strconv.Atoi(number)
	switch word {
	case "", "ok":
		p.work()
	case "fail":
		out, _ := json.Marshal(map[string]any{"cniVersion": p.conf.CNIVersion, "code": n, "msg": text})
		fmt.Println(string(out))
		os.Exit(1)
	case "exit":
		fmt.Fprint(os.Stderr, text)
		os.Exit(n)
	case "print":
		fmt.Print(text)
		os.Exit(n)
	case "hang":
		forever()
	case "late":
		d, err := time.ParseDuration(rest)
		check(err)
		time.Sleep(d)
		p.work()
	case "signal":
		_ = syscall.Kill(os.Getpid(), syscall.Signal(n))
		forever()
	case "flood":
		for {
			fmt.Println(strings.Repeat("x", 1023))
		}
	default:
		p.fork(word, rest)
	}
}

// fork does the orders that start a child.
func (p *plugin) fork(word, rest string) {
	switch word {
	case "fork-hang":
		p.child(true, "hang")
		forever()
	case "leak":
		p.child(true, "hang")
		p.work()
	case "daemon":
		p.child(false, "hang")
		p.work()
	case "fork-lease":
		p.child(true, "lease", rest, p.lease())
		forever()
	default:
		check(fmt.Errorf("unknown order %q", word))
	}
}

// child starts this program again, out of reach of the process group.
func (p *plugin) child(holdOutput bool, args ...string) {
	cmd := exec.Command("/proc/self/exe", args...)
	if holdOutput {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	check(cmd.Start())
	appendLine(p.Control, "pids", strconv.Itoa(cmd.Process.Pid))
	appendLine(p.Control, "children", strconv.Itoa(cmd.Process.Pid))
}

func child(args []string) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	if args[0] == "lease" {
		d, err := time.ParseDuration(args[1])
		check(err)
		time.Sleep(d)
		take(args[2])
	}
	forever()
}

func (p *plugin) lease() string {
	return filepath.Join(p.Control, "leases", os.Getenv("CNI_CONTAINERID")+"-"+os.Getenv("CNI_IFNAME"))
}

func take(lease string) {
	check(os.MkdirAll(filepath.Dir(lease), 0o755))
	check(os.WriteFile(lease, nil, 0o644))
}

func (p *plugin) work() {
	switch p.verb {
	case "ADD":
		take(p.lease())
		p.answer()
	case "DEL":
		if err := os.Remove(p.lease()); err != nil && !os.IsNotExist(err) {
			check(err)
		}
	}
}

// answer prints the result of ADD.
func (p *plugin) answer() {
	if len(p.conf.PrevResult) > 0 {
		fmt.Println(string(p.conf.PrevResult))
		return
	}
	if p.Address == "" {
		p.Address = "10.99.0.2/24"
	}
	result := map[string]any{"cniVersion": p.conf.CNIVersion, "ips": []any{map[string]any{"address": p.Address}}}
	out, err := json.Marshal(result)
	check(err)
	fmt.Println(string(out))
}

func appendLine(dir, name, line string) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	check(err)
	_, err = f.WriteString(line + "\n")
	check(err)
	check(f.Close())
}

func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

// check ends the plugin when a test has set it up wrongly.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cniplugin:", err)
		os.Exit(99)
	}
}
