//go:build failpoints

package pod

import (
	"os"
	"strconv"
)

// simulatedIDBytes is the size of IDs that tests set to simulate an older version.
func simulatedIDBytes(usual int) int {
	if bytes, err := strconv.Atoi(os.Getenv("PINFOLD_ID_BYTES")); err == nil {
		return bytes
	}
	return usual
}
