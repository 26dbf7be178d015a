package main

import (
	"context"
	"encoding/json"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func nodeStatus(ctx context.Context, t *tool, _ []string) error {
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	s, err := n.runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		return err
	}
	return t.printJSON(map[string]any{
		"conditions": s.Status.GetConditions(),
		"handlers":   s.RuntimeHandlers,
		"features":   s.Features,
		"info":       json.RawMessage(s.Info["info"]),
	})
}

func showVersion(ctx context.Context, t *tool, _ []string) error {
	fmt.Fprintln(t.out, "pinfold", version)
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	v, err := n.runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%s %s (CRI %s)\n", v.RuntimeName, v.RuntimeVersion, v.RuntimeApiVersion)
	return nil
}
