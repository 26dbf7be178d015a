package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pollInterval is how often a log that has ended for now is looked at again. The log is a plain file
// that another process writes; it is also what the kubelet does.
const pollInterval = 50 * time.Millisecond

func logs(ctx context.Context, t *tool, args []string) error {
	flags := flag.NewFlagSet("pinfold logs", flag.ContinueOnError)
	wait := flags.Bool("f", false, "go on until the container ends")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("logs: name one pod")
	}
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	id, err := n.containerOf(ctx, flags.Arg(0))
	if err != nil {
		return err
	}
	if *wait {
		return n.follow(ctx, t, id)
	}
	status, err := n.status(ctx, id)
	if err != nil {
		return err
	}
	r, err := openLog(status.LogPath)
	if err != nil {
		return err
	}
	defer r.close()
	return r.print(t)
}

// follow prints a container's output until its end and returns its exit code as an error.
func (n *node) follow(ctx context.Context, t *tool, id string) error {
	status, err := n.status(ctx, id)
	if err != nil {
		return err
	}
	log, err := openLog(status.LogPath)
	if err != nil {
		return err
	}
	defer log.close()
	for {
		// The state is asked before the log is read: what an ended container wrote is then all there.
		if status, err = n.status(ctx, id); err != nil {
			return err
		}
		if err := log.print(t); err != nil {
			return err
		}
		if status.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			return verdict(t, status)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

func verdict(t *tool, s *runtimeapi.ContainerStatus) error {
	if s.Message != "" {
		fmt.Fprintf(t.errs, "pinfold: %s: %s\n", visible(s.Reason), visibleLines(s.Message))
	}
	if s.ExitCode == 0 {
		return nil
	}
	return exitCode(s.ExitCode)
}

func (n *node) status(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	resp, err := n.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	return resp.GetStatus(), err
}

// logReader reads CRI's log format: "TIME STREAM TAG CONTENT", where the tag P says that the line goes on.
type logReader struct {
	file *os.File
	r    *bufio.Reader
	rest string
}

func openLog(path string) (*logReader, error) {
	if path == "" {
		return nil, errors.New("the container has no log")
	}
	// The path is the pod's maker's: a FIFO there would hold the open for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(fmt.Errorf("the log %s is not a regular file", path), err)
	}
	return &logReader{file: f, r: bufio.NewReaderSize(f, 64<<10)}, nil
}

func (l *logReader) close() { l.file.Close() }

// print writes out the records that are there by now, each to the stream it came from.
func (l *logReader) print(t *tool) error {
	for {
		line, err := l.r.ReadString('\n')
		l.rest += line
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		line, l.rest = l.rest, ""
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(fields) < 4 {
			continue
		}
		w := t.out
		if fields[1] == "stderr" {
			w = t.errs
		}
		end := "\n"
		if strings.HasPrefix(fields[2], "P") {
			end = ""
		}
		if _, err := io.WriteString(w, fields[3]+end); err != nil {
			return err
		}
	}
}
