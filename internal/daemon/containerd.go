package daemon

import (
	"context"
	"os"
	"path/filepath"

	"github.com/pinfold-run/pinfold/internal/containerd"
)

// maxFacade is how many connections the socket of containerd's API may have.
const maxFacade = 128

// serveContainerd serves containerd's API at path, for programs that know no CRI. It keeps nothing else from its work: if
// another program has the socket, which is a containerd as a rule, that is in the log and the pods do without. close ends
// it.
func serveContainerd(ctx context.Context, p *parts, path, version string) (end func()) {
	none := func() {}
	if path == "" {
		return none
	}
	unlock, err := claimContainerd(path)
	if err != nil {
		p.Log.Error("containerd's API is not served: stop the program that has its socket, or name another one, or none, in containerd_socket",
			"socket", path, "error", err)
		return none
	}
	s := &socket{path: path, mode: 0o600, most: maxFacade, log: p.Log}
	listener, err := s.listen()
	if err != nil {
		p.Log.Error("containerd's API is not served", "socket", path, "error", err)
		unlock()
		return none
	}
	ctx, stop := context.WithCancel(ctx)
	on := containerd.Parts{
		Places: p.Places, Book: p.Book, Events: p.events, Images: p.node.images, Stats: p.usage, Cgroups: p.node.cgroups,
		Release: version, Ending: ctx.Done(), Log: p.Log,
	}
	server := containerd.NewServer(on)
	go func() { _ = server.Serve(listener) }()
	go s.keep(ctx, server.Serve)
	// After the socket is there: cAdvisor asks as soon as it sees a group.
	go containerd.NewStandIns(on).Run(ctx)
	p.Log.Info("serving containerd's API", "socket", path)
	return func() {
		stop()
		server.Stop()
		s.remove()
		unlock()
	}
}

func claimContainerd(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	if unlock, err = lock(path+".lock", "socket "+path); err != nil {
		return nil, err
	}
	if err := vacant(path); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}
