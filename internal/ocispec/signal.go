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

// synonyms are CRI's second names of signals that have two.
var synonyms = []string{"SIGNAL_SIGCLD", "SIGNAL_SIGIOT", "SIGNAL_SIGPOLL"}

// StopSignal returns the signal that a stop begins with: the container's, or else the image's, or else
// SIGTERM. Where the image names one that does not exist it is SIGTERM too, with ErrInvalidArgument: reason to
// warn, not to refuse a container that is of use otherwise.
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

// criSignal goes by the names of CRI's values: the numbers are CRI's own.
func criSignal(s runtimeapi.Signal) (unix.Signal, bool) {
	name := strings.TrimPrefix(runtimeapi.Signal_name[int32(s)], "SIGNAL_")
	name = strings.Replace(name, "PLUS", "+", 1)
	name = strings.Replace(name, "MINUS", "-", 1)
	return parseSignal(name)
}

// parseSignal takes a number or a name, with or without SIG. The library takes every number but 0.
func parseSignal(s string) (unix.Signal, bool) {
	number, err := signal.ParseSignal(s)
	return number, err == nil && number > 0 && number <= highest
}

// criSignals are CRI's values for the kernel's numbers.
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

// CRISignal is CRI's value for a signal of the kernel; SIGNAL_RUNTIME_DEFAULT if CRI has none for it.
func CRISignal(number unix.Signal) runtimeapi.Signal { return criSignals()[number] }
