// Command client is kubectl's end of exec, attach and port-forward, for the tests of the end-to-end suite: the library that
// kubectl uses, directly at the URL of the runtime or through a kubelet's proxy.
//
//	client HOW exec|attach URL [stdin] [stdout] [stderr] [tty]
//	client HOW forward URL PORT   (prints the local port)
//
// HOW is spdy or websocket, or kubelet-spdy or kubelet-websocket with a kubelet's proxy in between. It ends with 0 for
// success, the command's exit code, or 125 for a failure, which it prints.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

const failed = 125

func main() {
	err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4:])
	var code exec.CodeExitError
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(code.Code)
	default:
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(failed)
	}
}

func run(how, what, where string, args []string) error {
	u, err := url.Parse(where)
	if err != nil {
		return err
	}
	streams := remotecommand.StreamOptions{Tty: slices.Contains(args, "tty")}
	if slices.Contains(args, "stdin") {
		streams.Stdin = os.Stdin
	}
	if slices.Contains(args, "stdout") {
		streams.Stdout = os.Stdout
	}
	if slices.Contains(args, "stderr") {
		streams.Stderr = os.Stderr
	}
	if strings.HasPrefix(how, "kubelet") {
		u = serve(u, kubelet(u))
	}
	overSPDY := strings.HasSuffix(how, "spdy")
	config := &rest.Config{Host: u.Host}
	if what == "forward" {
		return forward(config, u, overSPDY, args[0])
	}
	var executor remotecommand.Executor
	if overSPDY {
		executor, err = remotecommand.NewSPDYExecutor(config, http.MethodPost, u)
	} else {
		executor, err = remotecommand.NewWebSocketExecutor(config, http.MethodGet, u.String())
	}
	if err != nil {
		return err
	}
	return executor.StreamWithContext(context.Background(), streams)
}

// serve serves with a handler at another address and the same path.
func serve(to *url.URL, handler http.Handler) *url.URL {
	u := *to
	u.Host = strings.TrimPrefix(httptest.NewServer(handler).URL, "http://")
	return &u
}

// kubelet is what a kubelet does with the streams of a runtime.
func kubelet(to *url.URL) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := proxy.NewUpgradeAwareHandler(to, nil, false, true, responder{})
		p.ServeHTTP(w, r)
	})
}

type responder struct{}

// Error implements proxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

func forward(config *rest.Config, u *url.URL, overSPDY bool, port string) error {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
	if !overSPDY {
		if dialer, err = portforward.NewSPDYOverWebsocketDialer(u, config); err != nil {
			return err
		}
	}
	ready := make(chan struct{})
	f, err := portforward.New(dialer, []string{"0:" + port}, nil, ready, nil, os.Stderr)
	if err != nil {
		return err
	}
	go func() {
		<-ready
		if ports, err := f.GetPorts(); err == nil {
			fmt.Println(ports[0].Local)
		}
	}()
	return f.ForwardPorts()
}
