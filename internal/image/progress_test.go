package image_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pinfold-run/pinfold/internal/image"
)

// noise is a text that cannot be compressed.
func noise(n int) string {
	var b strings.Builder
	for x := uint32(1); b.Len() < n; x = x*1664525 + 1013904223 {
		b.WriteByte(byte(x >> 24))
	}
	return b.String()
}

func TestAPullInProgressSaysHowFarItIs(t *testing.T) {
	h := newHub(t)
	small, big := layerOf(t, reg("small", "s")), layerOf(t, reg("big", noise(200_000)))
	ref := h.push(t, "app:1", imageOf(t, "a", small, big))
	digest, data := big.digest(), big.blob
	half := len(data) / 2
	release, once := make(chan struct{}), sync.Once{}
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest.String()) {
			return false
		}
		mine := false
		once.Do(func() { mine = true })
		if !mine {
			return false // the rest, after the interruption
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:half])
		_ = http.NewResponseController(w).Flush()
		<-release
		return true
	})
	s := open(t, image.Config{})
	if got := s.Pulls(); len(got) != 0 {
		t.Fatalf("pulls of a new store: %v", got)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.Pull(context.Background(), ref, nil)
		ended <- err
	}()
	smallSize := int64(len(small.blob))
	want := image.PullStatus{Image: ref, Bytes: smallSize + int64(half), TotalBytes: smallSize + int64(len(data)), LayersDone: 1, Layers: 2}
	var got []image.PullStatus
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		got = s.Pulls()
		if len(got) == 1 {
			want.Began = got[0].Began
			if got[0] == want && !want.Began.IsZero() {
				break
			}
		}
	}
	if len(got) != 1 || got[0] != want {
		t.Errorf("pulls: %+v, want %+v", got, want)
	}
	close(release)
	must(t, <-ended)
	if got := s.Pulls(); len(got) != 0 {
		t.Errorf("after the pull: %v", got)
	}
}
