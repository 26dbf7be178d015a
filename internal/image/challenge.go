package image

import "strings"

// challenges separates those of a WWW-Authenticate header. A field may be a list of them (RFC 9110, 11.6.1), in which
// commas are between challenges and between the parameters of one; containerd's library takes it for one challenge.
func challenges(fields []string) []string {
	var all []string
	for _, field := range fields {
		of := len(all) // the first of this field
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

// elements are what stands between the commas that are not in quotation marks.
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

// isParameter: a name and "=", where a challenge has a name alone, or a name and a space.
func isParameter(element string) bool {
	end := strings.IndexAny(element, " \t=")
	return end >= 0 && strings.HasPrefix(strings.TrimLeft(element[end:], " \t"), "=")
}
