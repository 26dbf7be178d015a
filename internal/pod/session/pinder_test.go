package session

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// program stands in for a command: it runs in a goroutine of the test, with real pipes or a real terminal.
type program func(*process) wire.Exit

// process is what a program has. Its streams are closed when it returns.
type process struct {
	wire.Exec
	in, out, err *os.File
	killed       chan struct{} // closed when the daemon asks pinder to kill it
}

// standIn speaks pinder's protocol to the real client. It is here to let commands end, hang and get lost at will.
type standIn struct {
	t       *testing.T
	conn    *wire.Conn
	program program

	mu       sync.Mutex
	refusal  *wire.Error // of execs
	commands map[string]*process
}

// startPinder starts a stand-in that runs the program as every command, and connects a client.
func startPinder(t *testing.T, run program) (*client.Client, *standIn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pinfold") // the name of a test's own is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(listener, &unix.SockaddrUnix{Name: filepath.Join(dir, "pinder.sock")})
	}
	if err == nil {
		err = unix.Listen(listener, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &standIn{t: t, program: run, commands: map[string]*process{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		_ = unix.Close(listener)
		if err == nil {
			p.conn, err = wire.NewConn(fd)
		}
		if err != nil {
			t.Error(err)
			return
		}
		p.serve()
	}()
	c, err := client.Connect(t.Context(), client.Options{Binary: "/nowhere", State: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		<-ended
		_ = p.conn.Close()
	})
	return c, p
}

func (p *standIn) serve() {
	for {
		m, err := p.conn.Read()
		if err != nil {
			return
		}
		switch m.Type {
		case wire.TypeHello:
			p.send(0, wire.TypeHello, wire.Hello{Version: wire.Version})
		case wire.TypeExec:
			p.exec(m)
		case wire.TypeKillExec:
			var call wire.Call
			if err := m.Decode(&call); err != nil {
				p.t.Error(err)
			}
			p.mu.Lock()
			close(p.commands[call.ExecID].killed)
			p.mu.Unlock()
			p.send(m.ID, wire.TypeReply, nil)
		default:
			p.send(m.ID, wire.TypeReply, nil)
		}
	}
}

func (p *standIn) send(id uint64, typ string, body any, files ...*os.File) {
	m, err := wire.New(id, typ, body)
	for _, f := range files {
		m.FDs = append(m.FDs, int(f.Fd()))
	}
	if err == nil {
		err = p.conn.Write(m)
	}
	if err != nil && !errors.Is(err, unix.EPIPE) {
		p.t.Errorf("%s: %v", typ, err)
	}
	for _, f := range files {
		_ = f.Close()
	}
}

func (p *standIn) exec(m wire.Message) {
	p.mu.Lock()
	refusal := p.refusal
	p.mu.Unlock()
	if refusal != nil {
		if err := p.conn.Write(wire.Message{ID: m.ID, Type: wire.TypeReply, Error: refusal}); err != nil {
			p.t.Error(err)
		}
		return
	}
	c := &process{killed: make(chan struct{})}
	if err := m.Decode(&c.Exec); err != nil {
		p.t.Error(err)
	}
	p.mu.Lock()
	p.commands[c.ExecID] = c
	p.mu.Unlock()
	var names []string
	var files []*os.File
	if c.TTY {
		master, slave := terminal(p.t)
		names, files = []string{"tty"}, []*os.File{master}
		c.in, c.out, c.err = slave, slave, slave
	} else {
		var out, errs *os.File
		out, c.out = pipe(p.t)
		errs, c.err = pipe(p.t)
		names, files = []string{"stdout", "stderr"}, []*os.File{out, errs}
		if c.Stdin {
			in, daemons := pipe(p.t)
			c.in, names, files = in, append(names, "stdin"), append(files, daemons)
		}
	}
	p.send(m.ID, wire.TypeReply, wire.ExecStarted{PID: os.Getpid(), Streams: names}, files...)
	go func() {
		exit := p.program(c)
		exit.ID, exit.ExecID = c.ID, c.ExecID
		for _, f := range []*os.File{c.in, c.out, c.err} {
			if f != nil {
				_ = f.Close()
			}
		}
		p.send(0, wire.TypeExit, exit)
	}()
}

// refuse makes pinder refuse the execs to come.
func (p *standIn) refuse(why *wire.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusal = why
}

// asked are the execs that pinder was asked for.
func (p *standIn) asked() []wire.Exec {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []wire.Exec
	for _, c := range p.commands {
		all = append(all, c.Exec)
	}
	return all
}

func pipe(t *testing.T) (read, write *os.File) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Error(err)
	}
	return read, write
}

func terminal(t *testing.T) (master, slave *os.File) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Error(err)
	}
	return master, slave
}

// node is a ready sandbox "p" of the node's network with a running container "c", and the sessions with them.
func node(t *testing.T, pinder Pinder) (*Sessions, *pod.ContainerRecord, *bytes.Buffer) {
	t.Helper()
	places := &pod.Places{Paths: pod.Paths{State: t.TempDir()}}
	rec := &pod.ContainerRecord{ID: "c", Sandbox: "p", State: pod.Running, Config: pod.ContainerConfig{
		ContainerConfig: &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Stdin: true},
	}}
	book := pod.NewBook()
	book.AddContainer(pod.NewContainer(rec))
	book.AddSandbox(pod.NewSandbox(&pod.SandboxRecord{
		ID: "p", State: pod.Ready, Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
			Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
			}},
		}),
	}))
	if err := os.MkdirAll(places.Bundle("c"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := &specs.Spec{Process: &specs.Process{Args: []string{"main"}, Env: []string{"A=1"}, User: specs.User{UID: 5, GID: 6}}}
	if err := places.WriteBundleSpec("c", config); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	return New(Config{
		Places: places, Book: book, Pinder: pinder, Current: (*pod.Sandbox).Record,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}), rec, &log
}
