package pod

import (
	"encoding/json"
	"testing"
)

func TestARecordWithoutNamesOfItsImageShowsWhatItHas(t *testing.T) {
	var rec ContainerRecord
	old := `{"id":"c","config":{"image":{"image":"docker.io/library/busybox:1"}},"image":"sha256:ab","stopSignal":15,"times":{"created":"2026-01-01T00:00:00Z"}}`
	if err := json.Unmarshal([]byte(old), &rec); err != nil {
		t.Fatal(err)
	}
	if rec.ImageTag() != "docker.io/library/busybox:1" || rec.ImageRef() != "sha256:ab" || rec.ImageName() != "docker.io/library/busybox:1" {
		t.Errorf("tag %q, ref %q, name %q", rec.ImageTag(), rec.ImageRef(), rec.ImageName())
	}
}
