// Command puppet stands in the place of an OCI runtime or a CNI plugin in tests. It does that
// program's work by running it, except at the call it was given an order for.
//
// A copy of it is put into a directory under the program's name; the program itself is
// "real/<name>" there. The verb of a call is the OCI runtime's command or the value of CNI_COMMAND.
// Each call adds the line "<name>:<verb>" to the file "calls". An order is the file
// "<name>:<verb>" and is removed when it is obeyed, unless it begins with "always":
//
//	[always] [after] ACTION
//
// With "after" the work is done first. The actions:
//
//	pause          write our process ID to the FIFO "reached", read the FIFO "go", and go on
//	late DURATION  go on after a while
//	fail TEXT      say TEXT on standard error and end with status 1
//	rubbish        print something that is no answer and end with status 0
//	signal N       die of the signal
//	hang           never end
//	fork           start a child that holds our output open and never ends, and never end
//	leak           start such a child and go on
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type puppet struct{ dir, name, verb string }

func main() {
	if len(os.Args) == 2 && os.Args[1] == "never-end" {
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		forever()
	}
	self, err := os.Readlink("/proc/self/exe")
	check(err)
	p := puppet{dir: filepath.Dir(self), name: filepath.Base(self), verb: verb()}
	p.note()
	order := p.order()
	if order == "" {
		real := p.real()
		check(syscall.Exec(real, append([]string{real}, os.Args[1:]...), os.Environ()))
	}
	order, late := strings.CutPrefix(order, "after ")
	status := 0
	if late {
		status = p.work()
	}
	p.obey(order)
	if !late {
		status = p.work()
	}
	os.Exit(status)
}

// verb is CNI's, or the first argument of a runtime that is neither an option nor an option's value.
func verb() string {
	if v := os.Getenv("CNI_COMMAND"); v != "" {
		return v
	}
	for i := 1; i < len(os.Args); i++ {
		switch arg := os.Args[i]; {
		case arg == "--root" || arg == "--log" || arg == "--log-format":
			i++
		case !strings.HasPrefix(arg, "-"):
			return arg
		}
	}
	return ""
}

func (p *puppet) real() string { return filepath.Join(p.dir, "real", p.name) }

func (p *puppet) note() {
	f, err := os.OpenFile(filepath.Join(p.dir, "calls"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	check(err)
	_, err = fmt.Fprintf(f, "%s:%s\n", p.name, p.verb)
	check(err)
	check(f.Close())
}

func (p *puppet) order() string {
	path := filepath.Join(p.dir, p.name+":"+p.verb)
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	order, always := strings.CutPrefix(strings.TrimSpace(string(data)), "always ")
	if !always && os.Remove(path) != nil {
		return ""
	}
	return order
}

// work runs the real program as a child and returns its exit status.
func (p *puppet) work() int {
	cmd := exec.Command(p.real(), os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		check(err)
	}
	return cmd.ProcessState.ExitCode()
}

func (p *puppet) obey(order string) {
	word, text, _ := strings.Cut(order, " ")
	switch word {
	case "pause":
		check(os.WriteFile(filepath.Join(p.dir, "reached"), fmt.Appendln(nil, os.Getpid()), 0))
		proceed, err := os.Open(filepath.Join(p.dir, "go"))
		check(err)
		_, err = proceed.Read(make([]byte, 1))
		check(err)
	case "late":
		d, err := time.ParseDuration(text)
		check(err)
		time.Sleep(d)
	case "fail":
		fmt.Fprintln(os.Stderr, text)
		os.Exit(1)
	case "rubbish":
		fmt.Println(`{"this": is no answer`)
		os.Exit(0)
	case "signal":
		n, err := strconv.Atoi(text)
		check(err)
		check(syscall.Kill(os.Getpid(), syscall.Signal(n)))
		forever()
	case "hang":
		forever()
	case "fork":
		child()
		forever()
	case "leak":
		child()
	default:
		check(fmt.Errorf("unknown order %q", order))
	}
}

// child starts this program again, out of reach of the process group.
func child() {
	cmd := exec.Command("/proc/self/exe", "never-end")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	check(cmd.Start())
}

func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

// check ends the puppet when a test has set it up wrongly.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "puppet:", err)
		os.Exit(99)
	}
}
