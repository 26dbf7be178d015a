//go:build failpoints

package steps

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const failpointsBuilt = true

// reached looks for an order in the directory that the environment variable PINFOLD_FAILPOINTS
// names: the file "<operation>:<step>:<phase>". It removes the file, then carries the order out. So
// each order is carried out once, even if the program restarts. The orders:
//
//	kill            SIGKILL to this process
//	stop            SIGSTOP to this process
//	error TEXT      the step fails; with TEXT ENOSPC or EIO, by that error of the kernel
//	panic TEXT      the step panics
//	pause           write the process ID to the FIFO "reached" in the directory, then read the FIFO "go"
//
// In the phase "during" a duration comes first, as in "3ms kill". It starts with the step, and the
// step goes on meanwhile.
func reached(operation, step string, phase Phase) error {
	dir := os.Getenv("PINFOLD_FAILPOINTS")
	if dir == "" {
		return nil
	}
	if phase == Before {
		if order, ok := takeOrder(dir, operation, step, During); ok {
			wait, order, _ := strings.Cut(order, " ")
			after, err := time.ParseDuration(wait)
			if err != nil {
				return err
			}
			time.AfterFunc(after, func() { _ = obey(dir, order) })
		}
	}
	order, ok := takeOrder(dir, operation, step, phase)
	if !ok {
		return nil
	}
	return obey(dir, order)
}

// passed also adds the place to the file "places" in the directory, if there is such a file.
func passed(operation, place string) error {
	places := filepath.Join(os.Getenv("PINFOLD_FAILPOINTS"), "places")
	if f, err := os.OpenFile(places, os.O_APPEND|os.O_WRONLY, 0); err == nil {
		_, err = fmt.Fprintf(f, "%s:%s:%s\n", operation, place, After)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return reached(operation, place, After)
}

func takeOrder(dir, operation, step string, phase Phase) (string, bool) {
	path := filepath.Join(dir, operation+":"+step+":"+string(phase))
	data, err := os.ReadFile(path)
	if err != nil || os.Remove(path) != nil {
		return "", false
	}
	return strings.TrimSpace(string(data)), true
}

func obey(dir, order string) error {
	word, text, _ := strings.Cut(order, " ")
	switch word {
	case "kill":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "stop":
		return unix.Kill(os.Getpid(), unix.SIGSTOP)
	case "pause":
		return pause(dir)
	case "panic":
		panic(text)
	}
	if errno, ok := map[string]error{"ENOSPC": unix.ENOSPC, "EIO": unix.EIO}[text]; ok {
		return fmt.Errorf("fail point: %w", errno)
	}
	return errors.New("fail point: " + text)
}

// pause writes its process ID and waits until it may go on.
func pause(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "reached"), fmt.Appendln(nil, os.Getpid()), 0); err != nil {
		return err
	}
	proceed, err := os.Open(filepath.Join(dir, "go"))
	if err != nil {
		return err
	}
	defer proceed.Close()
	_, err = proceed.Read(make([]byte, 1))
	return err
}
