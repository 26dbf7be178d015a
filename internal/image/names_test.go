package image_test

import (
	"testing"

	"github.com/pinfold-run/pinfold/internal/image"
)

func TestAContainersImageHasTheNamesThatPeopleAndRegistriesUse(t *testing.T) {
	const id = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
	const digest = "@sha256:00000000000000000000000000000000000000000000000000000000000000ab"
	for _, c := range []struct {
		name, asked   string
		tags, digests []string
		want          image.Names
	}{
		{
			"the tag asked for, not the first", "nginx:1.27",
			[]string{"docker.io/library/nginx:1", "docker.io/library/nginx:1.27"},
			[]string{"docker.io/library/nginx" + digest},
			image.Names{Name: "docker.io/library/nginx:1.27", Ref: "docker.io/library/nginx" + digest},
		},
		{
			"the name asked for is no tag any more", "nginx:2",
			[]string{"quay.io:443/x/nginx:1", "quay.io:443/x/nginx:3"},
			[]string{"docker.io/library/nginx" + digest, "quay.io:443/x/nginx" + digest},
			image.Names{Name: "quay.io:443/x/nginx:1", Ref: "quay.io:443/x/nginx" + digest},
		},
		{
			"by digest, without a tag", "nginx" + digest,
			nil,
			[]string{"a.example/nginx" + digest, "docker.io/library/nginx" + digest},
			image.Names{Name: "nginx" + digest, Ref: "docker.io/library/nginx" + digest},
		},
		{"nothing but an ID", id, nil, nil, image.Names{Name: id}},
		{"nothing was asked for", "", nil, nil, image.Names{Name: id}},
		{
			"from an archive", "busybox",
			[]string{"docker.io/library/busybox:latest"},
			nil,
			image.Names{Name: "docker.io/library/busybox:latest"},
		},
	} {
		img := &image.Image{ID: id, Tags: c.tags, Digests: c.digests}
		if got := img.NamesFor(c.asked); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
