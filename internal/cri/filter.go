package cri

import "strings"

// idMatches reports whether a filter's ID, full or abbreviated, means this object.
func idMatches(id, want string) bool { return strings.HasPrefix(id, want) }

// labelsMatch reports whether an object has all wanted labels.
func labelsMatch(have, want map[string]string) bool {
	for key, value := range want {
		if got, ok := have[key]; !ok || got != value {
			return false
		}
	}
	return true
}
