package testroot

import (
	"flag"
	"os"
	"testing"
)

func TestTestsThatNeedRootAreLeftOutWithShortOrWithoutRoot(t *testing.T) {
	was := flag.Lookup("test.short").Value.String()
	defer func() { _ = flag.Set("test.short", was) }()
	for short, want := range map[string]bool{"true": true, "false": os.Geteuid() != 0} {
		if err := flag.Set("test.short", short); err != nil {
			t.Fatal(err)
		}
		if got := Missing() != ""; got != want {
			t.Errorf("with -short=%s, left out: %v, want %v", short, got, want)
		}
	}
}
