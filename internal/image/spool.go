package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// maxSpools is how many archives are received at once, maxArchive how many bytes one may have.
	maxSpools  = 8
	maxArchive = 64 << 30
	// defaultArchiveIdle is long, because the program that writes the archive may work for minutes
	// before its first byte.
	defaultArchiveIdle = 10 * time.Minute
)

// spool receives an archive into a file without a name. No lock is held, so a client that stops
// sending blocks nothing. The caller closes the file.
func (s *Store) spool(ctx context.Context, r io.Reader) (*os.File, error) {
	if n := s.spools.Add(1); n > maxSpools {
		s.spools.Add(-1)
		return nil, fmt.Errorf("%d archives are being received already: %w", maxSpools, errdefs.ErrUnavailable)
	}
	f, err := os.CreateTemp(s.layers.dir, tempPrefix+"archive-") // if the process dies, Open removes the file
	if err != nil {
		s.spools.Add(-1)
		return nil, withDiskClass(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		s.spools.Add(-1)
		return nil, errors.Join(err, f.Close())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := s.cfg.ArchiveIdle
	watch := time.AfterFunc(idle, func() {
		cancel(fmt.Errorf("archive: no data for %v: %w", idle, errdefs.ErrUnavailable))
	})
	defer watch.Stop()
	received := make(chan error, 1)
	go func() {
		received <- receiveArchive(f, r, func() { watch.Reset(idle) })
	}()
	end := func(err error) error {
		s.spools.Add(-1)
		if err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			err = errors.Join(err, f.Close())
		}
		return err
	}
	select {
	case err := <-received:
		if err := end(err); err != nil {
			return nil, err
		}
		return f, nil
	case <-ctx.Done():
		go func() { _ = end(errors.Join(context.Cause(ctx), <-received)) }() // the copy ends when its caller's stream ends
		return nil, context.Cause(ctx)
	}
}

// receiveArchive copies r into f and calls came for each piece.
func receiveArchive(f *os.File, r io.Reader, came func()) error {
	buffer := make([]byte, copyBuffer)
	for total := 0; ; {
		n, err := r.Read(buffer)
		if n > 0 {
			came()
			if total += n; total > maxArchive {
				return fmt.Errorf("archive has more than %d bytes: %w", maxArchive, errdefs.ErrResourceExhausted)
			}
			if _, err := f.Write(buffer[:n]); err != nil {
				return withDiskClass(fmt.Errorf("receive archive: %w", err))
			}
		}
		if err == io.EOF { //nolint:errorlint // io.Reader's contract: io.EOF itself
			return nil
		}
		if err != nil {
			return badArchive(err)
		}
	}
}
