package pair

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// TestRandomKillsLoseNothing runs container lives side by side while pinder's
// halves are killed or upgraded at random moments. PINFOLD_SOAK_SECONDS makes it
// longer and PINFOLD_SOAK_SEED repeats its choices.
func TestRandomKillsLoseNothing(t *testing.T) {
	seconds, seed := 10, uint64(time.Now().UnixNano())
	if s, err := strconv.Atoi(os.Getenv("PINFOLD_SOAK_SECONDS")); err == nil {
		seconds = s
	}
	if s, err := strconv.ParseUint(os.Getenv("PINFOLD_SOAK_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("seed %d", seed)
	n := newNode(t)
	stop := make(chan struct{})
	var lives atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w+1)))
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := n.life(fmt.Sprintf("w%d-%d", w, i), rnd); err != nil {
					t.Error(err)
					return
				}
				lives.Add(1)
			}
		})
	}
	kills := n.killAtRandom(rand.New(rand.NewPCG(seed, 0)), time.Duration(seconds)*time.Second)
	close(stop)
	wg.Wait()
	t.Logf("%d lives; kills of supervisor, reaper, both; upgrades: %v", lives.Load(), kills)
}

// life is create, start, exit, delete, with every answer checked.
func (n *node) life(id string, rnd *rand.Rand) error {
	lines, code := 1+rnd.IntN(100000), rnd.IntN(200)
	r := n.request(id, fmt.Sprintf("seq 1 %d; exit %d", lines, code))
	if _, err := n.client.Create(n.ctx(), r); err != nil {
		return err
	}
	if err := n.client.Start(n.ctx(), id); err != nil {
		return err
	}
	e, err := n.awaitExit(id)
	if err != nil {
		return err
	}
	if e.Code != code || e.Unknown {
		return fmt.Errorf("exit of %s: %+v, want code %d", id, e, code)
	}
	if err := n.client.Delete(n.ctx(), wire.Delete{ID: id}); err != nil {
		return err
	}
	out, stderr := n.logged(id)
	if got := checkNumbers(n.t, out); got != lines || stderr != "" {
		return fmt.Errorf("%s logged %d of %d lines, %q", id, got, lines, stderr)
	}
	_ = os.Remove(r.LogPath)
	return os.RemoveAll(r.Bundle)
}

func (n *node) awaitExit(id string) (wire.Exit, error) {
	deadline := time.After(90 * time.Second)
	for {
		n.mu.Lock()
		e, ok := n.exits[id]
		event := n.event
		n.mu.Unlock()
		if ok {
			_, found, err := client.ReadExit(filepath.Join(n.dir, id+".exit"))
			if err == nil && !found {
				err = fmt.Errorf("%s: told of its exit before the record", id)
			}
			return e, err
		}
		select {
		case <-event:
		case <-deadline:
			return wire.Exit{}, fmt.Errorf("no exit of %s", id)
		}
	}
}

func (n *node) killAtRandom(rnd *rand.Rand, limit time.Duration) (kills [4]int) {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		time.Sleep(time.Duration(rnd.IntN(400)) * time.Millisecond) // the moment is the experiment
		reaper, inner := n.pids()
		what := rnd.IntN(20)
		switch {
		case what < 12:
			_ = unix.Kill(inner, unix.SIGKILL)
			kills[0]++
		case what < 16:
			_ = unix.Kill(reaper, unix.SIGKILL)
			kills[1]++
		case what < 18:
			_ = unix.Kill(reaper, unix.SIGKILL)
			_ = unix.Kill(inner, unix.SIGKILL)
			kills[2]++
		default:
			if err := n.client.Upgrade(n.ctx(), pinderBinary); err != nil {
				n.t.Error(err)
			}
			kills[3]++
		}
	}
	return kills
}
