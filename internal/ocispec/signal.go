package ocispec

import (
	"slices"
	"strings"
	"sync"

	"github.com/moby/sys/signal"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// highest is the number of the last real-time signal.
const highest = 64

// synonyms are CRI's second names of signals with two names.
var synonyms = []string{"SIGNAL_SIGCLD", "SIGNAL_SIGIOT", "SIGNAL_SIGPOLL"}

// StopSignal returns the first signal of a stop: the container's, else the image's, else SIGTERM.
// If the image names a signal that does not exist, it is SIGTERM with ErrInvalidArgument: the
// caller warns, but does not refuse the container.
func StopSignal(config *runtimeapi.ContainerConfig, image imagespec.ImageConfig) (unix.Signal, error) {
	if given := config.GetStopSignal(); given != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		number, ok := criSignal(given)
		if !ok {
			return unix.SIGTERM, invalid("stop_signal", "%d is not a signal", given)
		}
		return number, nil
	}
	if image.StopSignal == "" {
		return unix.SIGTERM, nil
	}
	number, ok := parseSignal(image.StopSignal)
	if !ok {
		return unix.SIGTERM, invalid("image stop signal", "%q is not a signal", image.StopSignal)
	}
	return number, nil
}

// criSignal looks up the name of CRI's value. CRI has numbers of its own.
func criSignal(s runtimeapi.Signal) (unix.Signal, bool) {
	name := strings.TrimPrefix(runtimeapi.Signal_name[int32(s)], "SIGNAL_")
	name = strings.Replace(name, "PLUS", "+", 1)
	name = strings.Replace(name, "MINUS", "-", 1)
	return parseSignal(name)
}

// parseSignal parses a number or a name, with or without SIG. The library accepts every number
// except 0.
func parseSignal(s string) (unix.Signal, bool) {
	number, err := signal.ParseSignal(s)
	return number, err == nil && number > 0 && number <= highest
}

// criSignals maps the kernel's numbers to CRI's values.
var criSignals = sync.OnceValue(func() map[unix.Signal]runtimeapi.Signal {
	all := map[unix.Signal]runtimeapi.Signal{}
	for value, name := range runtimeapi.Signal_name {
		number, ok := criSignal(runtimeapi.Signal(value))
		if ok && !slices.Contains(synonyms, name) {
			all[number] = runtimeapi.Signal(value)
		}
	}
	return all
})

// CRISignal is CRI's value for a signal of the kernel; SIGNAL_RUNTIME_DEFAULT if CRI has none.
func CRISignal(number unix.Signal) runtimeapi.Signal { return criSignals()[number] }
