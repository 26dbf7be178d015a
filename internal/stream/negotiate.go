package stream

import (
	"net/http"
	"slices"
	"strings"
)

// hasToken reports whether a header lists the token, in any case.
func hasToken(h http.Header, name, token string) bool {
	return slices.ContainsFunc(listed(h.Values(name)), func(got string) bool { return strings.EqualFold(got, token) })
}

// listed are the elements of comma-separated header values.
func listed(values []string) []string {
	var all []string
	for _, v := range values {
		for element := range strings.SplitSeq(v, ",") {
			if element = strings.TrimSpace(element); element != "" {
				all = append(all, element)
			}
		}
	}
	return all
}

// choose returns the first of the client's protocols that the server knows, or "".
func choose(wanted, known []string) string {
	for _, p := range listed(wanted) {
		if slices.Contains(known, p) {
			return p
		}
	}
	return ""
}
