//go:build !failpoints

package pod

func olderNames() bool { return false }
