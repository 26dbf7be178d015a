package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/migrate"
)

// migrateOptions are the flags of pinfold migrate.
type migrateOptions struct {
	from    string
	address string
	config  string
	images  bool
	kubelet bool
	undo    bool
}

// otherRuntime is a runtime that a node can come from.
type otherRuntime struct{ name, socket, unit string }

var otherRuntimes = []otherRuntime{
	{"containerd", "/run/containerd/containerd.sock", "containerd"},
	{"crio", "/run/crio/crio.sock", "crio"},
}

// guide is the guide to a change of the runtime. The packages do not have it.
const guide = "https://github.com/pinfold-run/pinfold/blob/main/docs/guides/migrate.md"

func migrateCommand(t *tool) *cobra.Command {
	var o migrateOptions
	cmd := &cobra.Command{
		Use:   "migrate [--from RUNTIME] [--address SOCKET] [--images | --kubelet | --undo] [--kubelet-config FILE]",
		Short: "Move this node from containerd or CRI-O to Pinfold, and back",
		Long: `Without --images, --kubelet and --undo the command changes nothing. It prints the plan: the images
of the other runtime, the pods that have to be drained, and what to write into the kubelet's
configuration.

--images copies the images of containerd's store (namespace k8s.io) into Pinfold's, with all their
names and digests, so that nothing is pulled again. containerd has to run; its pods go on.
--kubelet makes the kubelet use Pinfold from its next start. It keeps a copy of each file that it
changes. --undo puts the copies back; of a file that was edited meanwhile, the runtime alone. The images
stay in both stores.

` + guide + ` has the whole way,
with the commands around it.`,
		Example: `  pinfold migrate
  pinfold migrate --images
  pinfold migrate --kubelet
  pinfold migrate --undo`,
		Args: wantsNothing,
		RunE: t.does(func(ctx context.Context, t *tool, _ []string) error { return migrateNode(ctx, t, &o) }),
	}
	cmd.Flags().StringVar(&o.from, "from", "containerd", "the other `RUNTIME`: containerd or crio")
	cmd.Flags().StringVar(&o.address, "address", "", "the other runtime's `SOCKET`; default its usual one")
	cmd.Flags().StringVar(&o.config, "kubelet-config", "", "the kubelet's configuration `FILE`; default /var/lib/kubelet/config.yaml")
	cmd.Flags().BoolVar(&o.images, "images", false, "copy the images of containerd's store")
	cmd.Flags().BoolVar(&o.kubelet, "kubelet", false, "write Pinfold's socket into the kubelet's configuration")
	cmd.Flags().BoolVar(&o.undo, "undo", false, "put the kubelet's configuration back")
	cmd.MarkFlagsMutuallyExclusive("images", "kubelet", "undo")
	_ = cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"containerd", "crio"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func migrateNode(ctx context.Context, t *tool, o *migrateOptions) error {
	var other otherRuntime
	for _, r := range otherRuntimes {
		if r.name == o.from {
			other = r
		}
	}
	if other.name == "" {
		return misuse("--from %s: the runtimes are containerd and crio", o.from)
	}
	if o.address != "" {
		other.socket = strings.TrimPrefix(o.address, "unix://")
	}
	switch {
	case o.images:
		return t.copyImages(ctx, other)
	case o.kubelet:
		return t.setKubelet(o)
	case o.undo:
		return t.undoKubelet(ctx, o, other)
	}
	return t.plan(ctx, o, other)
}

// open connects to the other runtime. The first call opens the connection.
func (r otherRuntime) open() (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
}

// otherTimeout limits a question to the other runtime.
const otherTimeout = 30 * time.Second

func (t *tool) copyImages(ctx context.Context, from otherRuntime) error {
	if from.name != "containerd" {
		return misuse("--images reads containerd's store only; %s says how CRI-O's images are copied", guide)
	}
	conn, err := from.open()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	store := migrate.NewStore(conn)
	limited, cancel := context.WithTimeout(ctx, otherTimeout)
	defer cancel()
	all, err := store.Images(limited)
	if err != nil {
		return fmt.Errorf("%s: %w", from.socket, err)
	}
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	failed := 0
	for i, image := range all {
		if err := n.copyImage(ctx, store, image); err != nil {
			if ctx.Err() != nil {
				return err
			}
			failed++
			t.complain(plain(err))
			continue
		}
		fmt.Fprintf(t.out, "%d of %d: %s\n", i+1, len(all), visible(image.String()))
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d images were not copied; they are pulled when a pod needs them", failed, len(all))
	}
	return nil
}

// copyImage streams one image from one store to the other.
func (n *node) copyImage(ctx context.Context, store *migrate.Store, image migrate.Image) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	exported := make(chan error, 1)
	go func() {
		err := store.Export(ctx, writer, image)
		_ = writer.CloseWithError(err)
		exported <- err
	}()
	_, err := n.load(ctx, reader)
	_ = reader.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if exportErr := <-exported; exportErr != nil && !errors.Is(exportErr, io.ErrClosedPipe) {
		return exportErr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	return nil
}

func (t *tool) setKubelet(o *migrateOptions) error {
	e, err := systemPlaces().find(t.socket)
	if err != nil {
		return err
	}
	changed, err := migrate.NewKubelet(o.config).Set("unix://" + e.path)
	for _, file := range changed {
		fmt.Fprintln(t.out, "changed:", file)
	}
	if err != nil {
		return err
	}
	if len(changed) == 0 {
		fmt.Fprintln(t.out, "the kubelet's files name Pinfold already")
		return nil
	}
	fmt.Fprintln(t.out, "The kubelet uses Pinfold from its next start: systemctl restart kubelet")
	return nil
}

func (t *tool) undoKubelet(ctx context.Context, o *migrateOptions, other otherRuntime) error {
	back, err := migrate.NewKubelet(o.config).Undo()
	for _, file := range back {
		fmt.Fprintln(t.out, "put back:", file)
	}
	if err != nil {
		return err
	}
	if len(back) == 0 {
		fmt.Fprintln(t.out, "there is nothing to put back: pinfold migrate --kubelet has changed nothing here")
	} else {
		fmt.Fprintf(t.out, "The kubelet uses the runtime of before from its next start: systemctl enable --now %s && systemctl restart kubelet\n", other.unit)
	}
	if n, err := t.connect(ctx); err == nil { // without a daemon, no pods can be listed
		defer n.close()
		return t.printPods(ctx, n.runtime, "Pinfold", "pinfold rm --all")
	}
	return nil
}

// printPods lists the ready pods of a runtime, which have to be gone before the kubelet uses another one.
func (t *tool) printPods(ctx context.Context, runtime runtimeapi.RuntimeServiceClient, name, remedy string) error {
	list, err := runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		return err
	}
	if len(list.GetItems()) == 0 {
		fmt.Fprintf(t.out, "%s has no pods.\n", name)
		return nil
	}
	fmt.Fprintf(t.out, "%s has %d pods. Drain the node (kubectl drain NODE --ignore-daemonsets); what is left then, remove with: %s\n", name, len(list.GetItems()), remedy)
	for _, pod := range list.GetItems() {
		fmt.Fprintf(t.out, "  %s/%s\n", visible(pod.GetMetadata().GetNamespace()), visible(pod.GetMetadata().GetName()))
	}
	return nil
}

// plan prints what has to be done, and changes nothing.
func (t *tool) plan(ctx context.Context, o *migrateOptions, other otherRuntime) error {
	e, err := systemPlaces().find(t.socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, otherTimeout)
	defer cancel()
	conn, err := other.open()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	version, err := client.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return fmt.Errorf("%s does not answer on %s: start it, or name its socket with --address: %s", other.name, other.socket, status.Convert(err).Message())
	}
	fmt.Fprintf(t.out, "%s %s on %s\n\n1. Images\n", visible(version.GetRuntimeName()), visible(version.GetRuntimeVersion()), other.socket)
	images, err := runtimeapi.NewImageServiceClient(conn).ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return err
	}
	var size uint64
	for _, i := range images.GetImages() {
		size += i.GetSize()
	}
	fmt.Fprintf(t.out, "%d images, %d MB. ", len(images.GetImages()), size/1e6)
	if other.name == "containerd" {
		fmt.Fprintln(t.out, "Copy them while the pods run: pinfold migrate --images")
	} else {
		fmt.Fprintln(t.out, "Copy those that cannot be pulled again with skopeo, see "+guide)
	}
	fmt.Fprintln(t.out, "\n2. Pods")
	remedy := "crictl -r unix://" + other.socket + " rmp --all --force"
	if err := t.printPods(ctx, client, version.GetRuntimeName(), remedy); err != nil {
		return err
	}
	fmt.Fprintf(t.out, `
3. The kubelet
systemctl stop kubelet
pinfold migrate --kubelet     # or by hand: containerRuntimeEndpoint: unix://%s
systemctl disable --now %s    # unless something else needs it, such as Docker
systemctl start kubelet
kubectl annotate node NODE --overwrite kubeadm.alpha.kubernetes.io/cri-socket=unix://%s    # with kubeadm
pinfold doctor

Back: pinfold migrate --undo
`, e.path, other.unit, e.path)
	return nil
}
