//go:build !failpoints

package record

func simulatedBoot() string { return "" }
