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

// pollInterval is how often follow reads the log again. The log is a plain file that another
// process writes. The kubelet polls it, too.
const pollInterval = 50 * time.Millisecond

func logs(ctx context.Context, t *tool, args []string) error {
	flags := flag.NewFlagSet("pinfold logs", flag.ContinueOnError)
	wait := flags.Bool("f", false, "follow the log until the container ends")
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
		// Ask for the state before reading. If the container has ended, its whole output is then in
		// the log.
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

// logReader reads CRI's log format, "TIME STREAM TAG CONTENT". The tag P means that the line
// continues in the next record.
type logReader struct {
	file *os.File
	r    *bufio.Reader
	rest string
}

func openLog(path string) (*logReader, error) {
	if path == "" {
		return nil, errors.New("the container has no log")
	}
	// The client that made the pod chose the path. To open a FIFO there would block for ever.
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

// print writes the records that are complete by now, each to its stream.
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
