package main

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
)

// node is a connection to the daemon.
type node struct {
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
	own     pinfoldv1.NodeServiceClient
	// logs lists the log directories that pinfold run made.
	logs logBook
}

// connect returns a client of the daemon. The caller closes it. The first call opens the
// connection.
func (t *tool) connect() (*node, error) {
	conn, err := grpc.NewClient("unix://"+t.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.socket, err)
	}
	return &node{
		conn: conn, runtime: runtimeapi.NewRuntimeServiceClient(conn), images: runtimeapi.NewImageServiceClient(conn),
		own:  pinfoldv1.NewNodeServiceClient(conn),
		logs: logBook{dir: t.socket + ".logs"},
	}, nil
}

func (n *node) close() { _ = n.conn.Close() }
