package ocispec

import (
	"net/netip"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the longest name that the API server allows, in bytes.
const maxName = 253

// checkName refuses a name that would become more than one name where it is written: another line
// of /etc/hosts, another argument of a CNI plugin (CNI_ARGS is K=V;K=V, without escapes), another
// pod's identity (its parts are joined by slashes). The API server allows far fewer names, but not
// all clients are kubelets.
func checkName(f *faults, field, name string) {
	switch {
	case name == "":
		f.invalid(field, "%q: must not be empty", name)
	case len(name) > maxName:
		f.invalid(field, "%.64q… has %d bytes, at most %d are allowed", name, len(name), maxName)
	case !isWord(name) || strings.ContainsAny(name, "/;="):
		f.invalid(field, "%q is not a name: spaces, control characters, '/', ';' and '=' are not allowed", name)
	}
}

// isWord reports whether a text is one word of visible characters.
func isWord(text string) bool {
	return text != "" && isPrintable(text) && !strings.Contains(text, " ")
}

// isPrintable reports whether a text is one line of visible characters. (unicode.IsPrint allows
// only the ASCII space.)
func isPrintable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// zone is what the scope of an IPv6 address can be: the name or number of an interface.
var zone = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,15}$`)

// isAddress reports whether a text is an IP address and nothing else. netip accepts any zone.
func isAddress(text string) bool {
	addr, err := netip.ParseAddr(text)
	return err == nil && (addr.Zone() == "" || zone.MatchString(addr.Zone()))
}
