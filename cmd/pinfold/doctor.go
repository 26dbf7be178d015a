package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/doctor"
)

// doctorOptions are the flags of pinfold doctor.
type doctorOptions struct {
	output  output
	json    bool
	all     bool
	config  string
	kubelet string
}

func doctorCommand(t *tool) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor [--all] [--json] [--config FILE] [--kubelet-config FILE]",
		Short: "Say what is wrong with this node, and how to mend it",
		Long: `Examine the node that the command runs on: kernel, cgroups, modules, sysctls, network
configuration and plugins, OCI runtimes, subordinate IDs, file systems, disk, clock, security
modules, the kubelet's configuration, and what another runtime has left. Each warning and error
has a remedy. The command changes nothing. It needs no daemon; as another user than root it cannot try
everything.

Exit codes: 0 nothing is wrong; 1 there are warnings or errors; 2 a check could not tell, and
nothing else is wrong; 64 wrong usage.`,
		Example: `  pinfold doctor
  pinfold doctor --all
  pinfold doctor --json | jq '.findings[] | select(.level == "error")'`,
		Args: wantsNothing,
		RunE: t.does(func(ctx context.Context, t *tool, _ []string) error { return examine(ctx, t, &o) }),
	}
	o.output.addFormat(cmd, formatTable)
	cmd.Flags().BoolVar(&o.json, "json", false, "the same as --output json")
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "also print what is well")
	cmd.Flags().StringVar(&o.config, "config", "", "the daemon's configuration `FILE`; default "+config.DefaultFile)
	cmd.Flags().StringVar(&o.kubelet, "kubelet-config", "", "the kubelet's configuration `FILE`; default that of the kubelet that runs, or kubeadm's")
	return cmd
}

func examine(ctx context.Context, t *tool, o *doctorOptions) error {
	if o.json {
		o.output.format = formatJSON
	}
	n := doctor.ThisNode()
	n.Config, n.ConfigError = readConfig(o.config)
	n.KubeletConfig = o.kubelet
	n.Daemon = func(ctx context.Context) (doctor.Daemon, error) { return t.askDaemon(ctx, n.Config) }
	report := doctor.Examine(ctx, n)
	err := o.output.print(t, report, func(w io.Writer) error { return doctorText(w, report, o.all) })
	if err != nil {
		return err
	}
	switch report.Worst() {
	case doctor.OK:
		return nil
	case doctor.Unknown:
		return exitCode(couldNotTell)
	}
	return exitCode(differencesFound)
}

// readConfig reads the daemon's configuration as it is written now.
func readConfig(file string) (*config.Effective, error) {
	flags := pflag.NewFlagSet("doctor", pflag.ContinueOnError)
	loader := config.Register(flags)
	if file != "" {
		if err := flags.Set("config", file); err != nil {
			return nil, err
		}
	}
	return loader.Load()
}

// connectConfigured connects to the daemon of --socket, or else to the one whose configuration c is;
// nil if that is not known.
func (t *tool) connectConfigured(ctx context.Context, c *config.Effective) (*node, error) {
	if t.socket != "" || c == nil {
		return t.connect(ctx)
	}
	e := endpoint{path: c.Socket}
	if e.path != defaultSocket {
		e.from = "the configuration"
	}
	return t.connectTo(ctx, e)
}

// askDaemon asks the daemon whether it is ready.
func (t *tool) askDaemon(ctx context.Context, c *config.Effective) (doctor.Daemon, error) {
	n, err := t.connectConfigured(ctx, c)
	if err != nil {
		return doctor.Daemon{}, err
	}
	defer n.close()
	s, err := n.runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		return doctor.Daemon{}, err
	}
	said := doctor.Daemon{Version: n.version.GetRuntimeVersion()}
	for _, c := range s.GetStatus().GetConditions() {
		if !c.GetStatus() {
			said.Problems = append(said.Problems, c.GetType()+" is false: "+reason(c))
		}
	}
	var info struct {
		Debts int `json:"debts"`
	}
	err = json.Unmarshal(rawInfo(s.GetInfo()), &info)
	said.Debts = info.Debts
	return said, err
}

// doctorText prints what is wrong, with the remedies, and how much was well.
func doctorText(w io.Writer, r doctor.Report, all bool) error {
	well := 0
	for _, f := range r.Findings {
		if f.Level == doctor.OK {
			well++
			if !all {
				continue
			}
		}
		fmt.Fprintf(w, "%-8s %s: %s\n", f.Level, f.Check, visible(f.What))
		if f.Remedy != "" {
			fmt.Fprintf(w, "%-8s %s\n", "", visible(f.Remedy))
		}
	}
	_, err := fmt.Fprintf(w, "%d of %d checks found nothing wrong\n", well, r.Checks())
	return err
}
