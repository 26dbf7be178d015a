package registry

import "strings"

// challenges splits a WWW-Authenticate header into its challenges. A field may be a list of them
// (RFC 9110, 11.6.1). Commas separate challenges, and also the parameters of one challenge.
// containerd's library reads the list as one challenge.
func challenges(fields []string) []string {
	var all []string
	for _, field := range fields {
		of := len(all) // where this field begins
		for _, element := range elements(field) {
			if len(all) > of && isParameter(element) {
				all[len(all)-1] += "," + element
			} else {
				all = append(all, element)
			}
		}
	}
	return all
}

// elements splits at commas outside of quotation marks.
func elements(field string) []string {
	var all []string
	quoted, begin := false, 0
	for i := 0; i <= len(field); i++ {
		switch {
		case i == len(field) || field[i] == ',' && !quoted:
			if element := strings.TrimSpace(field[begin:i]); element != "" {
				all = append(all, element)
			}
			begin = i + 1
		case field[i] == '"':
			quoted = !quoted
		case field[i] == '\\' && quoted:
			i++
		}
	}
	return all
}

// isParameter reports whether an element is NAME=VALUE. A challenge begins with a name alone, or a
// name and a space.
func isParameter(element string) bool {
	end := strings.IndexAny(element, " \t=")
	return end >= 0 && strings.HasPrefix(strings.TrimLeft(element[end:], " \t"), "=")
}
