package network

import (
	"slices"
	"testing"
)

func TestOfAPluginsArgumentsTheNamesAreToldAndNotTheValues(t *testing.T) {
	command, names := arguments([]string{
		"PATH=/bin", "PASSWORD=secret", "CNI_COMMAND=ADD", "CNI_IFNAME=eth0", "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=secret",
	})
	want := []string{"CNI_ARGS.IgnoreUnknown", "CNI_ARGS.K8S_POD_NAME", "CNI_COMMAND", "CNI_IFNAME"}
	if command != "ADD" || !slices.Equal(names, want) {
		t.Errorf("%q %q, want ADD %q", command, names, want)
	}
	if command, _ := arguments([]string{"CNI_COMMAND=made up"}); command != "" {
		t.Errorf("a command that CNI does not have: %q", command)
	}
}
