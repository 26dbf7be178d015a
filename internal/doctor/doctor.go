// Package doctor examines a node: what Pinfold and its pods need of the kernel, the network, the
// OCI runtimes, the disk and the kubelet, and what another runtime has left. Each finding has a
// remedy. It changes nothing and needs no daemon.
//
// A check is a function of a Node, and gets everything from it, so that tests can give it a broken
// one. Each check has its own file or shares it with checks of the same part of the node.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Level says how bad a finding is.
type Level string

// The levels, from harmless to bad. Unknown: the check could not tell.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Error   Level = "error"
	Unknown Level = "unknown"
)

// Finding is what one check says about one thing.
type Finding struct {
	// Check is the name of the check.
	Check string `json:"check"`
	Level Level  `json:"level"`
	// What was found.
	What string `json:"what"`
	// Remedy says what to do; empty if nothing has to be done.
	Remedy string `json:"remedy,omitempty"`
}

// Report is what all checks say, in the order of the checks.
type Report struct {
	Findings []Finding `json:"findings"`
}

// Worst is the worst level of the report: Error, then Warning, then Unknown, then OK.
func (r Report) Worst() Level {
	for _, level := range []Level{Error, Warning, Unknown} {
		if slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level == level }) {
			return level
		}
	}
	return OK
}

// check is one check: its name and its function, which reports at least one finding.
type check struct {
	name string
	run  func(context.Context, *Node) findings
}

// checks are all checks, in the order of the report.
var checks = []check{
	{"daemon", daemon},
	{"configuration", configuration},
	{"kernel", kernel},
	{"user-namespaces", userNamespaces},
	{"cgroups", cgroups},
	{"modules", modules},
	{"sysctls", sysctls},
	{"runtimes", runtimes},
	{"network", cni},
	{"ids", subordinateIDs},
	{"file-systems", fileSystems},
	{"disk", disk},
	{"clock", clock},
	{"security-modules", securityModules},
	{"kubelet", kubelet},
	{"other-runtimes", otherRuntimes},
}

// checkTimeout limits one check. A file system whose server is gone can hold one up for ever.
const checkTimeout = 15 * time.Second

// Examine runs all checks. A check that takes too long, or breaks, is reported as Unknown.
func Examine(ctx context.Context, n *Node) Report {
	var r Report
	for _, c := range checks {
		for _, f := range c.within(ctx, n) {
			f.Check = c.name
			r.Findings = append(r.Findings, f)
		}
	}
	return r
}

// within runs the check. If it takes too long, its goroutine is left behind: the program ends soon.
func (c check) within(ctx context.Context, n *Node) findings {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	done := make(chan findings, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- unknown("the check failed: %v", p)
			}
		}()
		done <- c.run(ctx, n)
	}()
	select {
	case found := <-done:
		return found
	case <-ctx.Done():
		return unknown("the check did not end in %s", checkTimeout)
	}
}

// findings are those of one check.
type findings []Finding

// add adds a finding. what is formatted with values; a remedy that is not empty is a whole sentence.
func (f *findings) add(level Level, remedy, what string, values ...any) {
	*f = append(*f, Finding{Level: level, What: fmt.Sprintf(what, values...), Remedy: remedy})
}

// or returns the findings, or that everything is well if there is none.
func (f findings) or(what string, values ...any) findings {
	if len(f) > 0 {
		return f
	}
	f.add(OK, "", what, values...)
	return f
}

func unknown(what string, values ...any) findings {
	var f findings
	f.add(Unknown, "", what, values...)
	return f
}

// Checks is how many checks there are.
func (Report) Checks() int { return len(checks) }
