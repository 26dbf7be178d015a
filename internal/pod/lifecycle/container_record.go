package lifecycle

import (
	"context"
	"errors"
	"os"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// containerRecord is the step "record" of a container: the record is written first and removed last.
type containerRecord struct {
	places  *pod.Places
	book    *pod.Book
	records *pod.Records
}

// Do writes the first record, if the sandbox is ready.
func (s containerRecord) Do(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	if err := s.book.Admit(c); err != nil {
		return err
	}
	if err := os.MkdirAll(s.places.Containers(box.ID), 0o700); err != nil {
		return err
	}
	return s.records.PutContainer(c.Record())
}

// Undo removes the record, and the file in which pinder says how the container ended. It reads the IDs alone.
func (s containerRecord) Undo(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	if err := os.Remove(s.places.Exit(box.ID, c.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.records.RemoveContainer(c); err != nil {
		return err
	}
	s.book.RemoveContainer(c.ID)
	s.records.ContainerRemoved(c)
	return nil
}
