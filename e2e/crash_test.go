package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// victims are the processes that can be killed at a point. The last two are the processes that
// stopped there.
const (
	daemonVictim     = "daemon"
	supervisorVictim = "supervisor"
	reaperVictim     = "reaper"
	pinderVictim     = "pinder" // both processes of pinder together
	allVictim        = "all"    // the daemon and both processes of pinder
	// no process is killed; the step fails as on a broken disk.
	errorVictim   = "EIO"
	runtimeVictim = "runtime"
	pluginVictim  = "plugin"
)

// point is one cell of the matrix: a place in an operation, and the process that is killed there.
type point struct {
	op operation
	// place is a step ("RunPodSandbox/network"), or a call of a puppet ("bridge:ADD").
	place, phase, victim string
	// order is the file that stops the operation there, orderText its content.
	order, orderText string
}

func (p point) String() string {
	return fmt.Sprintf("%-21s %-35s %-6s %-10s", p.op.name, p.place, p.phase, p.victim)
}

// PINFOLD_CRASH=all runs the whole matrix. PINFOLD_CRASH_ONLY=REGEXP runs the points whose line in
// the table matches.
var (
	wholeMatrix = os.Getenv("PINFOLD_CRASH") == "all"
	onlyPoints  = regexp.MustCompile(os.Getenv("PINFOLD_CRASH_ONLY"))
)

// TestCrashMatrix kills every process of Pinfold, of the runtime and of the plugins, one at a time
// and some together, before, during and after every step of every operation. After each kill it
// checks: a pod without a part in it is not affected; the operation is finished or undone; the same
// request succeeds the next time; after the subject is removed, nothing is left. The points come
// from the steps that run, so a new step is included automatically.
func TestCrashMatrix(t *testing.T) {
	points := matrix(t)
	table := &table{}
	t.Cleanup(func() { table.print(t) })
	// If all are killed, the pipes of running containers break. So that bystander prints nothing.
	var double []point
	points = slices.DeleteFunc(points, func(p point) bool {
		if p.victim == allVictim {
			double = append(double, p)
		}
		return p.victim == allVictim
	})
	half := len(points) / 2
	for name, list := range map[string][]point{"one": points[:half], "two": points[half:], "double fault": double} {
		if len(list) > 0 {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ownNetwork(t)
				runPoints(t, newCrashNode, list, table)
			})
		}
	}
}

// ownNetwork gives the calling goroutine, and the processes that it starts, their own network
// namespace: two iptables in one namespace disturb each other.
func ownNetwork(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if err := runQuiet(t.Context(), "ip", "link", "set", "lo", "up"); err != nil {
		t.Fatal(err)
	}
	// /proc/sys/net belongs to the thread that reads it.
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// matrix runs each operation once without a kill, and makes points of what it observes.
func matrix(t *testing.T) []point {
	var points []point
	// This node ends before the others begin.
	t.Run("reference", func(t *testing.T) {
		n := newCrashNode(t)
		n.addBystander(true)
		for _, op := range operations() {
			points = append(points, n.observe(op)...)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return slices.DeleteFunc(points, func(p point) bool { return !onlyPoints.MatchString(p.String()) })
}

var stepLine = regexp.MustCompile(`msg=step operation=(\S+) object="[^"]*" step=("[^"]+"|\S+) took=(\S+)`)

// observe runs an operation and returns its points: its steps, and its calls of runtime and
// plugins.
func (n *crashNode) observe(op operation) []point {
	n.t.Helper()
	s := n.subject(op)
	if op.prepare != nil {
		if err := op.prepare(s); err != nil {
			n.t.Fatalf("%s: prepare: %v", op.name, err)
		}
	}
	mark, calls := n.endOfLog(), len(n.calls())
	if op.fails != "" {
		n.order(op.fails, "error told to")
	}
	if err := op.act(s); (err != nil) != (op.fails != "") {
		n.t.Fatalf("%s: %v", op.name, err)
	}
	if op.fails == "" {
		if err := op.holds(s); err != nil {
			n.t.Fatalf("%s: %v", op.name, err)
		}
	}
	// What follows in the background belongs to the operation. It ends when the host is clean
	// again.
	if op.name == "exit" || op.name == "stop" {
		_ = n.until("the undo of the exit", func() bool { return strings.Contains(n.logFrom(mark), `step="undo rootfs"`) })
	}
	end := n.endOfLog()
	log, seen := n.log.String()[mark:end], n.calls()[calls:]
	if strings.HasPrefix(op.name, "run pod") || strings.HasPrefix(op.name, "create") {
		// The checks after these go on to create and start. Only the request itself counts.
		log, seen = cutAfter(op, log, seen)
	}
	if err := errors.Join(s.removePods(), n.clean()); err != nil {
		n.t.Fatalf("%s: %v", op.name, err)
	}
	return append(stepPoints(op, log), callPoints(op, seen)...)
}

// cutAfter removes what the check did from the observations of an operation.
func cutAfter(op operation, log string, calls []string) (string, []string) {
	name := "RunPodSandbox"
	if strings.HasPrefix(op.name, "create") {
		name = "CreateContainer"
	}
	var kept []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "operation="+name+" ") {
			kept = append(kept, line)
		}
	}
	// The check makes the call that starts the container. For a pod it also makes the call that
	// creates it.
	if i := slices.Index(calls, "runc:start"); i >= 0 && name == "CreateContainer" {
		calls = calls[:i]
	}
	if op.fails == "" && name == "RunPodSandbox" {
		calls = calls[:max(0, len(calls)-2)]
	}
	return strings.Join(kept, ""), calls
}

func (n *crashNode) calls() []string {
	data, err := os.ReadFile(n.fault("calls"))
	if err != nil {
		n.t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Fields(string(data)), func(call string) bool {
		_, verb, _ := strings.Cut(call, ":")
		return slices.Contains([]string{"", "features", "VERSION", "STATUS", "GC"}, verb)
	})
}

func stepPoints(op operation, log string) []point {
	var points []point
	for _, m := range stepLine.FindAllStringSubmatch(log, -1) {
		operation, step := m[1], strings.Trim(m[2], `"`)
		if op.fails != "" && !strings.HasPrefix(step, "undo ") {
			continue
		}
		took, _ := time.ParseDuration(m[3])
		for _, phase := range []string{"before", "during", "after"} {
			text := "pause"
			if phase == "during" {
				text = fmt.Sprintf("%s pause", took/2)
			}
			for _, victim := range []string{daemonVictim, supervisorVictim, reaperVictim, pinderVictim, allVictim} {
				if !wholeMatrix && !inShort(victim) {
					continue
				}
				points = append(points, point{
					op: op, place: operation + "/" + step, phase: phase, victim: victim,
					order: operation + ":" + step + ":" + phase, orderText: text,
				})
			}
			if phase == "before" || phase == "after" && wholeMatrix {
				points = append(points, point{
					op: op, place: operation + "/" + step, phase: phase, victim: errorVictim,
					order: operation + ":" + step + ":" + phase, orderText: "error EIO",
				})
			}
		}
	}
	return points
}

// inShort selects the points for the short matrix: those that kill the daemon. Pinder's own tests
// and the soak kill pinder.
func inShort(victim string) bool { return victim == daemonVictim }

func callPoints(op operation, calls []string) []point {
	slices.Sort(calls)
	var points []point
	for _, call := range slices.Compact(calls) {
		if op.fails != "" && !strings.HasSuffix(call, ":delete") && !strings.HasSuffix(call, ":DEL") {
			continue // doing, not undoing
		}
		own := pluginVictim
		if strings.HasPrefix(call, "runc:") {
			own = runtimeVictim
		}
		for _, phase := range []string{"before", "after"} {
			for _, victim := range []string{own, daemonVictim, supervisorVictim, reaperVictim, pinderVictim, allVictim} {
				if own == pluginVictim && !slices.Contains([]string{pluginVictim, daemonVictim}, victim) {
					continue // pinder takes no part in it
				}
				if !wholeMatrix && slices.Contains([]string{supervisorVictim, reaperVictim, pinderVictim, allVictim}, victim) {
					continue
				}
				text := "pause"
				if phase == "after" {
					text = "after pause"
				}
				points = append(points, point{op: op, place: call, phase: phase, victim: victim, order: call, orderText: text})
			}
		}
	}
	return points
}

// runPoints tries one point after the other on a node. After a failure it uses a new node.
func runPoints(t *testing.T, newNode func(*testing.T) *crashNode, points []point, table *table) {
	for len(points) > 0 {
		n := newNode(t)
		n.addBystander(points[0].victim != allVictim)
		for len(points) > 0 {
			p := points[0]
			points = points[1:]
			began := time.Now()
			verdict, err := n.try(p)
			table.add(p, verdict, time.Since(began), err)
			if err != nil {
				t.Errorf("%s: %v\nthe daemon's log of it:\n%s", p, err, n.logFrom(n.mark))
				n.abandon()
				break
			}
		}
	}
}

// abandon ends a node whose test failed, so that the next one starts on a clean host.
func (n *crashNode) abandon() {
	n.disarm()
	if n.daemon != nil {
		n.kill()
	}
	if n.conn != nil {
		n.conn.Close() // otherwise it would reconnect all the time
	}
	for _, group := range n.cgroups() {
		pids, _ := os.ReadFile(filepath.Join(strings.TrimPrefix(group, "cgroup "), "cgroup.procs"))
		for _, field := range strings.Fields(string(pids)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	for _, veth := range n.veths() {
		name, _, _ := strings.Cut(strings.TrimPrefix(veth, "link "), "@")
		_ = exec.Command("ip", "link", "delete", name).Run()
	}
	n.force()
}

func (n *crashNode) subject(op operation) *subject {
	n.subjects++
	return &subject{crashNode: n, name: fmt.Sprintf("s%d", n.subjects), options: op.options}
}

// try runs one operation, kills at the point, and checks. The verdict is the result of the first
// request.
func (n *crashNode) try(p point) (string, error) {
	n.mark = n.logMark()
	s := n.subject(p.op)
	if p.op.prepare != nil {
		if err := p.op.prepare(s); err != nil {
			return "", fmt.Errorf("prepare: %w", err)
		}
	}
	if p.op.fails != "" {
		n.order(p.op.fails, "error told to")
	}
	s.mute = p.op.runs && p.victim == allVictim
	first, err := n.interrupt(p, s)
	if err != nil {
		return "", err
	}
	verdict := "finished"
	if first != nil {
		verdict = "again"
		if strings.Contains(first.Error(), "reserved") {
			return "", fmt.Errorf("the request says: %w", first)
		}
	}
	if err := p.op.act(s); err != nil {
		return "", fmt.Errorf("the same request again: %w\nthe first one's error was: %w", err, first)
	}
	if err := p.op.holds(s); err != nil {
		return "", fmt.Errorf("after the same request again: %w\nthe first one's error was: %w", err, first)
	}
	if err := n.bystanderUnharmed(); err != nil {
		return "", err
	}
	if err := s.removePods(); err != nil {
		return "", err
	}
	if err := n.clean(); err != nil {
		return "", errors.Join(err, n.bystanderUnharmed())
	}
	return verdict, n.checkAgrees(p.victim)
}

// checkAgrees also runs pinfold check. If all were killed, it rightly says that the bystander's
// output is lost.
func (n *crashNode) checkAgrees(victim string) error {
	out, code := n.pinfold("check")
	if victim == allVictim && code == 1 && strings.Count(out, "\n") == 1 && strings.Contains(out, "its output is not logged any more") {
		return nil
	}
	if code != 0 {
		return fmt.Errorf("pinfold check finds (%d):\n%s", code, out)
	}
	return nil
}

// interrupt begins the operation and kills the victim at the point. first is the request's own
// error.
func (n *crashNode) interrupt(p point, s *subject) (first, err error) {
	stop := n.armed()
	defer stop.close()
	n.order(p.order, p.orderText)
	done := make(chan error, 1)
	go func() { done <- p.op.act(s) }()
	if p.victim == errorVictim {
		err = n.until("the step to fail", func() bool {
			_, gone := os.Stat(n.fault(p.order))
			return gone != nil
		})
		err = errors.Join(err, within(time.Minute, "the request", wrapFirst(done, &first)))
		return first, err
	}
	var stopped int
	select {
	case stopped = <-stop.pid:
		err = n.killVictim(p.victim, stopped)
	case <-time.After(readyTimeout):
		err = errors.New("the operation did not come to this point")
	}
	if n.daemon == nil {
		n.launch() // while the stopped runtime or plugin is still stopped
	} else {
		select {
		case <-n.exited:
			err = errors.Join(err, errors.New("the daemon ended"))
		default:
		}
	}
	stop.release()
	if stopped != 0 {
		err = errors.Join(err, n.until("the stopped process to go on", func() bool { return stop.goesOn(stopped) }))
	}
	if waitErr := within(time.Minute, "the request", wrapFirst(done, &first)); waitErr != nil {
		err = errors.Join(err, waitErr)
	}
	if left := n.disarm(); len(left) > 0 && err == nil {
		err = fmt.Errorf("orders were not obeyed: %v", left)
	}
	return first, err
}

// wrapFirst keeps the request's error apart: it is a result, not a failure of the test.
func wrapFirst(done <-chan error, first *error) <-chan error {
	ended := make(chan error, 1)
	go func() {
		*first = <-done
		ended <- nil
	}()
	return ended
}

// killVictim kills the victim. stopped is the process that waits at the point.
func (n *crashNode) killVictim(victim string, stopped int) error {
	kill := func(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }
	switch victim {
	case daemonVictim:
		n.kill()
		return nil
	case runtimeVictim, pluginVictim:
		return kill(stopped)
	}
	reaper, supervisor, err := n.pinders()
	if err != nil {
		return err
	}
	switch victim {
	case supervisorVictim:
		return kill(supervisor)
	case reaperVictim:
		return kill(reaper)
	case pinderVictim:
		return errors.Join(kill(supervisor), kill(reaper))
	default:
		// The daemon first: otherwise it would give its duplicates to a new pinder.
		_ = syscall.Kill(n.daemon.Process.Pid, syscall.SIGKILL)
		err := errors.Join(kill(supervisor), kill(reaper))
		n.kill()
		return err
	}
}

// table collects the verdicts of all points.
type table struct {
	mu    sync.Mutex
	lines []string
	count map[string]int
}

func (t *table) add(p point, verdict string, took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		verdict = "FAILED"
	}
	if t.count == nil {
		t.count = map[string]int{}
	}
	t.count[verdict]++
	t.lines = append(t.lines, fmt.Sprintf("%s %-9s %5d ms", p, verdict, took.Milliseconds()))
}

func (t *table) print(test *testing.T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.lines)
	test.Logf("the crash matrix:\n%s\n%d points: %v", strings.Join(t.lines, "\n"), len(t.lines), t.count)
}
