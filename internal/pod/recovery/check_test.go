package recovery

import "testing"

func TestADifferenceIsWhatLasts(t *testing.T) {
	of := func(object, finding string) Difference { return Difference{Object: object, Finding: finding} }
	before := sight{found: []Difference{of("a", "owed once"), of("b", "gone"), of("busy", "gone")}}
	now := sight{
		found:  []Difference{of("a", "owed twice"), of("new", "gone")},
		passed: map[string]bool{"busy": true, "other": true},
	}
	got := lasting(before, now).found
	if len(got) != 2 || got[0] != of("busy", "gone") || got[1] != of("a", "owed twice") {
		t.Errorf("lasting are %+v", got)
	}
}
