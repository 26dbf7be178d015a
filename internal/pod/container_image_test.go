package pod

import (
	"encoding/json"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image"
)

func TestAContainersImageHasTheNamesThatPeopleAndRegistriesUse(t *testing.T) {
	const id = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
	const digest = "@sha256:00000000000000000000000000000000000000000000000000000000000000ab"
	for _, c := range []struct {
		name          string
		asked         *runtimeapi.ImageSpec
		tags, digests []string
		want          ImageNames
	}{
		{
			"a kubelet asks by ID", &runtimeapi.ImageSpec{Image: id, UserSpecifiedImage: "nginx:1.27"},
			[]string{"docker.io/library/nginx:1", "docker.io/library/nginx:1.27"},
			[]string{"docker.io/library/nginx" + digest},
			ImageNames{"docker.io/library/nginx:1.27", "docker.io/library/nginx" + digest},
		},
		{
			"the name asked for is no tag any more", &runtimeapi.ImageSpec{Image: id, UserSpecifiedImage: "nginx:2"},
			[]string{"quay.io:443/x/nginx:1", "quay.io:443/x/nginx:3"},
			[]string{"docker.io/library/nginx" + digest, "quay.io:443/x/nginx" + digest},
			ImageNames{"quay.io:443/x/nginx:1", "quay.io:443/x/nginx" + digest},
		},
		{
			"by digest, without a tag", &runtimeapi.ImageSpec{Image: id, UserSpecifiedImage: "nginx" + digest},
			nil,
			[]string{"a.example/nginx" + digest, "docker.io/library/nginx" + digest},
			ImageNames{"nginx" + digest, "docker.io/library/nginx" + digest},
		},
		{"nothing but an ID", &runtimeapi.ImageSpec{Image: id}, nil, nil, ImageNames{Name: id}},
		{
			"from an archive", &runtimeapi.ImageSpec{Image: "busybox"},
			[]string{"docker.io/library/busybox:latest"},
			nil,
			ImageNames{Name: "docker.io/library/busybox:latest"},
		},
	} {
		if got := namesOf(c.asked, &image.Image{ID: id, Tags: c.tags, Digests: c.digests}); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

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
