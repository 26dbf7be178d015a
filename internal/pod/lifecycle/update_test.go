package lifecycle

import "testing"

func TestAnUpdateOfTheBundleKeepsWhatItSaysNothingOf(t *testing.T) {
	for name, c := range map[string]struct {
		base   string
		change any
		want   string
	}{
		"member by member": {
			`{"a":1,"linux":{"resources":{"cpu":{"shares":5,"quota":7}},"x":[1]}}`,
			map[string]any{"linux": map[string]any{"resources": map[string]any{"cpu": map[string]any{"shares": 6}}}},
			`{"a":1,"linux":{"resources":{"cpu":{"quota":7,"shares":6}},"x":[1]}}`,
		},
		"what is not there yet": {`{}`, map[string]any{"linux": map[string]any{"b": 1}}, `{"linux":{"b":1}}`},
		"numbers that a float64 does not hold": {
			`{"n":9223372036854775807}`,
			map[string]any{"m": int64(9223372036854775806)},
			`{"m":9223372036854775806,"n":9223372036854775807}`,
		},
		"a list is one value": {`{"l":[1,2]}`, map[string]any{"l": []int{3}}, `{"l":[3]}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := mergeJSON([]byte(c.base), c.change)
			if err != nil || string(got) != c.want {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
		})
	}
	if _, err := mergeJSON([]byte("no JSON"), nil); err == nil {
		t.Error("a bundle that is no JSON is accepted")
	}
}
