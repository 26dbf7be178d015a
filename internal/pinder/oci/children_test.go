package oci

import "testing"

func TestUnclaimedChildStaysUntilCallsUnderWayHaveEnded(t *testing.T) {
	c := NewChildren()
	first := c.BeginCall()
	c.mu.Lock()
	defer c.mu.Unlock()
	may := func(want bool, why string) {
		t.Helper()
		if got := c.mayReap(10); got != want {
			t.Fatalf("%s: may reap: %v", why, got)
		}
	}
	may(false, "a call is under way that may report it")
	c.calls[first+1] = true
	c.last = first + 1
	delete(c.calls, first)
	may(true, "the later call began after it was seen")
	c.claimed[10] = true
	may(false, "it is claimed")
}
