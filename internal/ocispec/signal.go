package ocispec

import (
	"strconv"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// The C libraries keep the first two real-time signals for themselves (signal(7)).
	realTimeMin = 34
	realTimeMax = 64
)

// synonyms are the signals that have two names.
var synonyms = map[string]string{"SIGCLD": "SIGCHLD", "SIGIOT": "SIGABRT", "SIGPOLL": "SIGIO"}

// StopSignal returns the signal that a stop begins with: the container's, or else the image's, or else
// SIGTERM. Where the image names one that does not exist it is SIGTERM too, with ErrInvalidArgument: reason to
// warn, not to refuse a container that is of use otherwise.
func StopSignal(config *runtimeapi.ContainerConfig, image ocispec.ImageConfig) (unix.Signal, error) {
	if given := config.GetStopSignal(); given != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		signal, ok := criSignal(given)
		if !ok {
			return unix.SIGTERM, invalid("stop_signal", "%d is not a signal", given)
		}
		return signal, nil
	}
	if image.StopSignal == "" {
		return unix.SIGTERM, nil
	}
	signal, ok := parseSignal(image.StopSignal)
	if !ok {
		return unix.SIGTERM, invalid("image stop signal", "%q is not a signal", image.StopSignal)
	}
	return signal, nil
}

// criSignal goes by the names of CRI's values: the numbers are CRI's own.
func criSignal(s runtimeapi.Signal) (unix.Signal, bool) {
	name := strings.TrimPrefix(runtimeapi.Signal_name[int32(s)], "SIGNAL_")
	name = strings.Replace(name, "PLUS", "+", 1)
	name = strings.Replace(name, "MINUS", "-", 1)
	return parseSignal(name)
}

// parseSignal takes a number or a name, with or without SIG, real-time signals as RTMIN+n and RTMAX-n.
func parseSignal(s string) (unix.Signal, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return unix.Signal(n), n > 0 && n <= realTimeMax
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if other, ok := synonyms[name]; ok {
		name = other
	}
	for prefix, base := range map[string]int{"SIGRTMIN": realTimeMin, "SIGRTMAX": realTimeMax} {
		offset, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		n := base
		if offset != "" {
			distance, err := strconv.Atoi(offset)
			if err != nil {
				return 0, false
			}
			n += distance
		}
		return unix.Signal(n), n >= realTimeMin && n <= realTimeMax
	}
	signal := unix.SignalNum(name)
	return signal, signal != 0
}

// criSignals are CRI's values for the kernel's numbers.
var criSignals = sync.OnceValue(func() map[unix.Signal]runtimeapi.Signal {
	all := map[unix.Signal]runtimeapi.Signal{}
	for value, name := range runtimeapi.Signal_name {
		number, ok := criSignal(runtimeapi.Signal(value))
		if _, other := synonyms[strings.TrimPrefix(name, "SIGNAL_")]; ok && !other {
			all[number] = runtimeapi.Signal(value)
		}
	}
	return all
})

// CRISignal is CRI's value for a signal of the kernel; SIGNAL_RUNTIME_DEFAULT if CRI has none for it.
func CRISignal(number unix.Signal) runtimeapi.Signal { return criSignals()[number] }
