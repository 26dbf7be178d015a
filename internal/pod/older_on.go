//go:build failpoints

package pod

import "os"

// olderNames reports whether a test wants pods and containers with the names that older versions gave them: short IDs, and
// other scopes.
func olderNames() bool { return os.Getenv("PINFOLD_OLDER_NAMES") != "" }
