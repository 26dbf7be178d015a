package lifecycle

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestAnAppArmorProfileThatIsNotLoadedIsRefusedByName(t *testing.T) {
	loaded := func(name string) (bool, error) { return name == "there", nil }
	for _, profile := range []string{"", "there"} {
		if err := checkAppArmor(loaded, profile); err != nil {
			t.Errorf("%q: %v", profile, err)
		}
	}
	if err := checkAppArmor(loaded, "not-there"); !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), `"not-there"`) {
		t.Errorf("got %v", err)
	}
}
