package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// gatedRegistry passes requests on to a registry. Requests for layers wait until release.
func gatedRegistry(t *testing.T) (host string, release func()) {
	t.Helper()
	inner, err := url.Parse("http://" + startRegistry(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(inner)
	gate := make(chan struct{})
	var mu sync.Mutex
	var config string
	isLayer := func(path string) bool {
		mu.Lock()
		defer mu.Unlock()
		if config == "" && strings.Contains(path, "/blobs/") {
			config = path // The configuration comes first: it says which layers there are.
		}
		return strings.Contains(path, "/blobs/") && path != config
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isLayer(r.URL.Path) {
			<-gate
		}
		proxy.ServeHTTP(w, r)
	}))
	release = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(server.Close)
	t.Cleanup(release)
	return strings.TrimPrefix(server.URL, "http://"), release
}

func TestAPullInProgressIsInTheStatusWithItsProgress(t *testing.T) {
	t.Parallel()
	host, release := gatedRegistry(t)
	n := newNode(t)
	n.launch()
	ref := host + "/library/busybox:1"
	pulled := make(chan error, 1)
	go func() {
		_, err := n.pull(ref, secret)
		pulled <- err
	}()
	type pull struct {
		Image                                 string
		Bytes, TotalBytes, LayersDone, Layers int64
	}
	pulls := func() []pull {
		resp, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{Verbose: true})
		n.check(err)
		var info struct{ Pulls []pull }
		n.check(json.Unmarshal([]byte(resp.Info["info"]), &info))
		return info.Pulls
	}
	var got []pull
	n.check(n.until("the pull to be seen", func() bool {
		got = pulls()
		return len(got) == 1 && got[0].Layers == 2
	}))
	if p := got[0]; p.Image != ref || p.TotalBytes < 100_000 || p.Bytes != 0 || p.LayersDone != 0 {
		t.Errorf("the verbose status says %+v", p)
	}
	for _, args := range [][]string{{"why"}, {"why", "library/busybox"}, {"status", "-o", "json"}} {
		if out, code := n.pinfold(args...); code != 0 || !strings.Contains(out, ref) {
			t.Errorf("pinfold %v (exit code %d) does not name %s:\n%s", args, code, ref, out)
		}
	}
	if out, _ := n.pinfold("why"); !strings.Contains(out, "PullImage: image "+ref) || !strings.Contains(out, "0 of 2 layers") {
		t.Errorf("why: %s", out)
	}
	release()
	n.check(<-pulled)
	if got := pulls(); len(got) != 0 {
		t.Errorf("after the pull: %v", got)
	}
	if out, _ := n.pinfold("why"); out != "nothing is in progress\n" {
		t.Errorf("why, after the pull: %s", out)
	}
}
