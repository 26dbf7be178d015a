package main

import (
	"strconv"
	"strings"
	"unicode"
)

// visible is a text of foreign origin, such as the name of a pod, for a terminal: what would steer the terminal,
// break the line or turn the reading direction is written as Go's escapes.
func visible(s string) string { return escape(s, "") }

// visibleLines is visible for a text that may have several lines.
func visibleLines(s string) string { return escape(s, "\n\t") }

func escape(s, allowed string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) || strings.ContainsRune(allowed, r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}
