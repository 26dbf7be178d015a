package recovery

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// stored are the records of one pod and of its containers, as they were read.
type stored struct {
	id      string
	sandbox pod.Read[*pod.SandboxRecord]
	// names are the IDs of the containers, err is why they are not known.
	names      []string
	err        error
	containers []pod.Read[*pod.ContainerRecord]
}

// readStored reads the records of pods, in the order of ids. To decode them is most of the work of a start, so all processors
// share it.
func readStored(records *pod.Records, ids []string) []*stored {
	all := make([]*stored, len(ids))
	var next atomic.Int64
	var readers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(ids)) {
		readers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(ids); i = int(next.Add(1)) - 1 {
				all[i] = readPod(records, ids[i])
			}
		})
	}
	readers.Wait()
	return all
}

// readPod reads the records of one pod. A record that the decoder cannot bear is one that cannot be read.
func readPod(records *pod.Records, id string) *stored {
	s := &stored{id: id}
	if err := fault.Guard(func() error { s.sandbox = records.ReadSandbox(id); return nil }); err != nil {
		s.sandbox.Err = err
	}
	s.names, s.err = records.Containers(id)
	s.containers = make([]pod.Read[*pod.ContainerRecord], len(s.names))
	for i, name := range s.names {
		if err := fault.Guard(func() error { s.containers[i] = records.ReadContainer(id, name); return nil }); err != nil {
			s.containers[i].Err = err
		}
	}
	return s
}
