package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func statusCommand(t *tool) *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:     "status [--output FORMAT]",
		Aliases: []string{"info"},
		Short:   "Show whether the node can run pods, and its features",
		Long: `Show the conditions that the kubelet reads, the runtime handlers, and the features of the node. JSON
and YAML also have "info": what was probed, the debts, the pulls.

Exit codes: 0 every condition is true; 1 one is not (standard error says which and why), or no
daemon answers; 64 wrong usage.`,
		Example: `  pinfold status
  pinfold status -o json | jq .info`,
		Args: wantsNothing,
		RunE: t.does(func(ctx context.Context, t *tool, _ []string) error { return nodeStatus(ctx, t, &o) }),
	}
	o.addFormat(cmd, formatTable)
	return cmd
}

// nodeReport is what status prints: CRI's StatusResponse, with its info as JSON.
type nodeReport struct {
	Status          document        `json:"status"`
	RuntimeHandlers []document      `json:"runtimeHandlers"`
	Features        document        `json:"features"`
	Info            json.RawMessage `json:"info"`
}

func nodeStatus(ctx context.Context, t *tool, o *output) error {
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	s, err := n.runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		return err
	}
	return printStatus(t, o, s)
}

func printStatus(t *tool, o *output, s *runtimeapi.StatusResponse) error {
	report := nodeReport{Status: document{s.GetStatus()}, RuntimeHandlers: []document{}, Features: document{s.GetFeatures()}, Info: rawInfo(s.GetInfo())}
	for _, h := range s.GetRuntimeHandlers() {
		report.RuntimeHandlers = append(report.RuntimeHandlers, document{h})
	}
	if err := o.print(t, report, func(w io.Writer) error { return statusTable(w, s) }); err != nil {
		return err
	}
	var failed error
	for _, c := range s.GetStatus().GetConditions() {
		if !c.GetStatus() {
			t.complain(fmt.Sprintf("the node is not ready: %s is false: %s", visible(c.GetType()), visible(reason(c))))
			failed = exitCode(exitFailed)
		}
	}
	if len(s.GetStatus().GetConditions()) == 0 {
		t.complain("the node is not ready: the daemon reports no conditions")
		failed = exitCode(exitFailed)
	}
	return failed
}

func statusTable(w io.Writer, s *runtimeapi.StatusResponse) error {
	var info struct {
		Debts   int `json:"debts"`
		Plugins []struct {
			Plugin, Way, Reason string
		} `json:"networkPlugins"`
	}
	if err := json.Unmarshal(rawInfo(s.GetInfo()), &info); err != nil {
		return err
	}
	err := columns(w, func(w io.Writer) {
		fmt.Fprintln(w, "CONDITION\tSTATUS\tREASON")
		for _, c := range s.GetStatus().GetConditions() {
			fmt.Fprintf(w, "%s\t%t\t%s\n", visible(c.GetType()), c.GetStatus(), orDash(visible(reason(c))))
		}
		fmt.Fprintln(w)
		fmt.Fprintln(w, "HANDLER\tUSER NAMESPACES\tRECURSIVE READ-ONLY MOUNTS")
		for _, h := range s.GetRuntimeHandlers() {
			name := visible(h.GetName())
			if name == "" {
				name = "(default)"
			}
			fmt.Fprintf(w, "%s\t%t\t%t\n", name, h.GetFeatures().GetUserNamespaces(), h.GetFeatures().GetRecursiveReadOnlyMounts())
		}
		if len(info.Plugins) > 0 {
			fmt.Fprintln(w)
			fmt.Fprintln(w, "NETWORK PLUGIN\tCALLED\tREASON")
		}
		for _, p := range info.Plugins {
			fmt.Fprintf(w, "%s\t%s\t%s\n", visible(p.Plugin), visible(p.Way), orDash(visible(p.Reason)))
		}
	})
	if info.Debts > 0 {
		fmt.Fprintf(w, "\n%d pods or containers have debts: what could not be undone yet; pinfold check lists them\n", info.Debts)
	}
	return err
}

func reason(c *runtimeapi.RuntimeCondition) string {
	return strings.Trim(c.GetReason()+": "+c.GetMessage(), ": ")
}
