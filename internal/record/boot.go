package record

import (
	"fmt"
	"os"
	"strings"
)

// BootID reads the kernel's boot ID (random(4)): new at every boot.
func BootID() (string, error) {
	if id := simulatedBoot(); id != "" {
		return id, nil
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("record: boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}
