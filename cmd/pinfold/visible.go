package main

import (
	"strconv"
	"strings"
	"unicode"
)

// visible makes a foreign text, such as a pod's name, safe for a terminal. Characters that control
// the terminal, break the line or change the reading direction are written as Go's escapes.
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
