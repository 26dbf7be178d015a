// Command server runs image registries on loopback for tests. It prints its address, and ends when its standard input
// does. Each value of the header Registry is a registry of its own.
//
// It is a module of its own, so that the go.mod of Pinfold lists what ships.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "`HOST:PORT` to serve on")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	var registries sync.Map
	fmt.Fprintln(os.Stderr, http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Header.Get("Registry")
		one, ok := registries.Load(name)
		if !ok {
			one, _ = registries.LoadOrStore(name, registry.New(registry.Logger(log.New(io.Discard, "", 0))))
		}
		one.(http.Handler).ServeHTTP(w, r)
	})))
	os.Exit(1)
}
