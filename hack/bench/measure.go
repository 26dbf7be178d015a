package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// floorName is the floor's in the results.
const floorName = "the floor"

// measure measures all parts: each round one subject after the other, so that a busy minute of the machine is nobody's
// alone.
func measure(ctx context.Context, o options, scratch string) (*result, error) {
	t, err := findTools()
	if err != nil {
		return nil, err
	}
	archive, err := writeImage(scratch)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(scratch, 0o711); err != nil {
		return nil, err
	}
	list, err := subjects(o, t, scratch, archive)
	if err != nil {
		return nil, err
	}
	bare, err := newFloor(t, filepath.Join(scratch, "f"))
	if err != nil {
		return nil, err
	}
	r := newResult(o, t)
	defer func() {
		for _, s := range list {
			s.close()
		}
	}()
	logs := filepath.Join(scratch, "logs")
	for round := range o.rounds {
		for _, s := range list {
			fmt.Fprintf(os.Stderr, "bench: round %d: %s\n", round+1, s.name)
			if err := s.round(ctx, o, logs, r); err != nil {
				return nil, err
			}
		}
		if o.measures("pods") {
			fmt.Fprintf(os.Stderr, "bench: round %d: %s\n", round+1, floorName)
			if err := bare.round(ctx, o, r); err != nil {
				return nil, err
			}
		}
	}
	if !o.measures("crowd") || o.crowd == 0 {
		return r, nil
	}
	for _, s := range list {
		fmt.Fprintf(os.Stderr, "bench: %d pods: %s\n", o.crowd, s.name)
		if err := s.open(ctx); err != nil {
			return nil, err
		}
		err := s.measureCrowd(ctx, o.crowd, logs, r)
		s.close()
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (s *subject) round(ctx context.Context, o options, logs string, r *result) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	defer s.close()
	if o.measures("pods") {
		for _, k := range kinds {
			for _, parallel := range []int{1, 8} {
				if err := s.measurePods(ctx, k, o.pods, parallel, logs, r); err != nil {
					return err
				}
			}
		}
	}
	if o.measures("exec") {
		return s.measureExec(ctx, o.execs, logs, r)
	}
	return nil
}

func (f *floor) round(ctx context.Context, o options, r *result) error {
	for _, k := range kinds {
		if k.containers > 1 {
			continue
		}
		for _, parallel := range []int{1, 8} {
			if err := f.measure(ctx, k, o.pods, parallel, r); err != nil {
				return err
			}
		}
	}
	return nil
}
