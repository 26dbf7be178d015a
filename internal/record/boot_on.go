//go:build failpoints

package record

import "os"

// simulatedBoot lets the tests pretend that the node was rebooted; "" means that it was not.
func simulatedBoot() string { return os.Getenv("PINFOLD_BOOT_ID") }
