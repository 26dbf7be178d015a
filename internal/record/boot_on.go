//go:build failpoints

package record

import "os"

// simulatedBoot is the boot ID that tests set to simulate a reboot; "" means none.
func simulatedBoot() string { return os.Getenv("PINFOLD_BOOT_ID") }
