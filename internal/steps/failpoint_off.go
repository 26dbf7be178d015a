//go:build !failpoints

package steps

const failpointsBuilt = false

func passed(_, _ string) error { return nil }

func reached(_, _ string, _ Phase) error { return nil }
