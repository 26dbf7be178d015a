//go:build !failpoints

package steps

const failpointsBuilt = false

func reached(_, _ string, _ Phase) error { return nil }
