package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/image/blob"
	"github.com/pinfold-run/pinfold/internal/kernel/durable"
)

const (
	// maxSpools is how many archives are received at once, maxArchive how many bytes one may have.
	maxSpools  = 8
	maxArchive = 64 << 30
	// defaultArchiveIdle is long, because the program that writes the archive may work for minutes
	// before its first byte.
	defaultArchiveIdle = 10 * time.Minute
)

// spools receives archives into files.
type spools struct {
	dir   string
	idle  time.Duration // how long a client may send nothing
	count atomic.Int32  // archives being received
}

// receive receives an archive into a file without a name. No lock is held, so a client that stops sending blocks
// nothing. The caller closes the file.
func (s *spools) receive(ctx context.Context, r io.Reader) (*os.File, error) {
	if n := s.count.Add(1); n > maxSpools {
		s.count.Add(-1)
		return nil, fmt.Errorf("%d archives are being received already: %w", maxSpools, errdefs.ErrUnavailable)
	}
	f, err := s.file()
	if err != nil {
		s.count.Add(-1)
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(s.idle, func() {
		cancel(fmt.Errorf("archive: no data for %v: %w", s.idle, errdefs.ErrUnavailable))
	})
	defer watch.Stop()
	received := make(chan error, 1)
	go func() {
		received <- receiveArchive(f, r, func() { watch.Reset(s.idle) })
	}()
	select {
	case err := <-received:
		if err := s.end(f, err); err != nil {
			return nil, err
		}
		return f, nil
	case <-ctx.Done():
		go func() { _ = s.end(f, errors.Join(context.Cause(ctx), <-received)) }() // the copy ends when its caller's stream ends
		return nil, context.Cause(ctx)
	}
}

// file makes a file without a name.
func (s *spools) file() (*os.File, error) {
	f, err := os.CreateTemp(s.dir, durable.TempPrefix+"archive-") // if the process dies, Open removes the file
	if err != nil {
		return nil, blob.DiskClass(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// end makes a received file ready to be read. After an error it closes it.
func (s *spools) end(f *os.File, err error) error {
	s.count.Add(-1)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		err = errors.Join(err, f.Close())
	}
	return err
}

// receiveArchive copies r into f and calls came for each piece.
func receiveArchive(f *os.File, r io.Reader, came func()) error {
	buffer := make([]byte, 128<<10)
	for total := 0; ; {
		n, err := r.Read(buffer)
		if n > 0 {
			came()
			if total += n; total > maxArchive {
				return fmt.Errorf("archive has more than %d bytes: %w", maxArchive, errdefs.ErrResourceExhausted)
			}
			if _, err := f.Write(buffer[:n]); err != nil {
				return blob.DiskClass(fmt.Errorf("receive archive: %w", err))
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
