package image_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/image"
)

func TestALoadWhoseReaderHangsKeepsNothingFromOthers(t *testing.T) {
	archive := dockerArchive(t, map[string]builtImage{"local:1": imageOf(t, "a", layerOf(t, reg("a", "")))})
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	hung, feed := io.Pipe()
	first := make(chan error, 1)
	go func() { _, err := s.Load(t.Context(), hung); first <- err }()
	_, err := feed.Write(archive[:len(archive)/2]) // Write returns when it has been read
	must(t, err)
	list, err := s.Load(t.Context(), bytes.NewReader(archive))
	must(t, err)
	must(t, s.Remove(t.Context(), list[0].ID))
	expectInventory(t, root, map[string]int{}) // blobs, too: the first load holds no lock that blocks them
	_, err = feed.Write(archive[len(archive)/2:])
	must(t, err)
	must(t, feed.Close())
	must(t, <-first)
	equal(t, "images", len(s.List()), 1)
}

func TestALoadWhoseReaderGivesNothingEnds(t *testing.T) {
	root := t.TempDir()
	s := open(t, image.Config{Root: root, ArchiveIdle: 50 * time.Millisecond})
	hung, feed := io.Pipe()
	_, err := s.Load(t.Context(), hung)
	expectError(t, err, errdefs.IsUnavailable, "no data for 50ms")
	must(t, feed.Close())
	expectInventory(t, root, map[string]int{})
}

func TestArchivesThatAreReceivedAtOnceAreBounded(t *testing.T) {
	s := open(t, image.Config{})
	var feeds []*io.PipeWriter
	ended := make(chan error, 100)
	for range 8 {
		hung, feed := io.Pipe()
		feeds = append(feeds, feed)
		go func() { _, err := s.Load(t.Context(), hung); ended <- err }()
		_, err := feed.Write([]byte("x")) // Write returns when it has been read
		must(t, err)
	}
	_, err := s.Load(t.Context(), bytes.NewReader(nil))
	expectError(t, err, errdefs.IsUnavailable, "8 archives")
	for _, feed := range feeds {
		must(t, feed.Close())
		<-ended
	}
	_, err = s.Load(t.Context(), bytes.NewReader(nil))
	expectError(t, err, errdefs.IsInvalidArgument)
}
