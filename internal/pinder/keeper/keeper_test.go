package keeper

import (
	"testing"

	"github.com/pinfold-run/pinfold/internal/pinder/oci"
)

// bareKeeper has no reaper and no daemon.
func bareKeeper(t *testing.T) *Keeper {
	t.Helper()
	k, err := New(t.TempDir(), nil, oci.NewChildren(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
