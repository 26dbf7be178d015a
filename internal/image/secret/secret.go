// Package secret keeps credentials out of messages: it removes them from texts and errors.
package secret

import (
	"encoding/json"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const (
	redacted = "[redacted]"
	// shortSecret: shorter secrets occur in ordinary words. They are removed only where they stand
	// alone.
	shortSecret = 4
	// maxErrorText limits the text of a registry in an error.
	maxErrorText = 600
)

// What scrub does with a byte.
const (
	shown byte = iota
	hidden
	dropped
)

var (
	scheme = regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]*:(?://|\\/\\/)`)
	// query is the query of a URL without scheme: "/v2/x?sig=…".
	query = regexp.MustCompile(`[?#][^\s"<>=]*=`)
	// named is a value with a telling name; group 1 is the value.
	named = regexp.MustCompile(`(?i)\b[a-z_-]*(?:signature|sig|token|password|passwd|secret|credential|api_?key)=([^\s"&;,]+)|` +
		`"[a-z_-]*(?:signature|token|password|secret|authorization)"\s*:\s*"([^"]+)|` +
		`\b(?:bearer|basic)\s+([a-z0-9._~+/=-]{20,})`)
)

// Scrub returns text without credentials, on one line. It removes query, fragment and user of every
// URL, and all secrets in every form in which messages quote them. It searches the original text,
// so that one removal never hides another.
func Scrub(text string, secrets []string) string {
	fate := make([]byte, len(text))
	mark := func(from, to int, as byte) {
		for i := from; i < to; i++ {
			fate[i] = max(fate[i], as)
		}
	}
	for _, at := range scheme.FindAllStringIndex(text, -1) {
		maskURL(text, at[0], at[1], mark)
	}
	for _, at := range query.FindAllStringIndex(text, -1) {
		mark(at[0], endOfURL(text, at[0], at[1]), dropped)
	}
	for _, at := range named.FindAllStringSubmatchIndex(text, -1) {
		for i := 2; i < len(at); i += 2 {
			if at[i] >= 0 {
				mark(at[i], at[i+1], hidden)
			}
		}
	}
	for _, secret := range secrets {
		for _, form := range formsOf(secret) {
			maskSecret(text, form, mark)
		}
	}
	out := oneLine(apply(text, fate))
	for _, secret := range secrets { // the removal between two pieces may have joined them
		if len(secret) >= shortSecret && !strings.Contains(redacted, secret) {
			out = strings.ReplaceAll(out, secret, redacted)
		}
	}
	return out
}

// maskURL marks user, query and fragment of the URL whose scheme is text[start:rest].
func maskURL(text string, start, rest int, mark func(from, to int, as byte)) {
	end := endOfURL(text, start, rest)
	path := end
	if i := strings.IndexAny(text[rest:end], "?#"); i >= 0 {
		path = rest + i
		mark(path, end, dropped)
	}
	// A password may contain a slash that should have been escaped. A digest after @ is not a host.
	user := strings.LastIndexByte(text[rest:path], '@')
	if user < 0 {
		return
	}
	slash := strings.IndexByte(text[rest:path], '/')
	if slash >= 0 && user > slash && strings.HasPrefix(text[rest+user:path], "@sha") {
		user = strings.LastIndexByte(text[rest:rest+slash], '@')
	}
	mark(rest, rest+user+1, dropped)
}

// endOfURL finds the end of a URL that begins at start. A URL after a quotation mark ends at the
// next one; an escaped mark is a part of the URL.
func endOfURL(text string, start, from int) int {
	quoted := start > 0 && text[start-1] == '"'
	for i := from; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
		case c == '"':
			return i
		case !quoted && (c == '<' || c == '>' || c <= ' '):
			return i
		}
	}
	return len(text)
}

// formsOf are the forms in which a message may write a secret.
func formsOf(secret string) []string {
	if secret == "" {
		return nil
	}
	quoted := strconv.Quote(secret)
	forms := []string{secret, quoted[1 : len(quoted)-1], url.QueryEscape(secret), url.PathEscape(secret)}
	if data, err := json.Marshal(secret); err == nil {
		forms = append(forms, string(data[1:len(data)-1]))
	}
	return forms
}

func maskSecret(text, secret string, mark func(from, to int, as byte)) {
	for from := 0; ; {
		i := strings.Index(text[from:], secret)
		if i < 0 {
			return
		}
		start := from + i
		end := start + len(secret)
		if len(secret) >= shortSecret || standsAlone(text, start, end) {
			mark(start, end, hidden)
		}
		from = start + 1
	}
}

// standsAlone reports whether there is no letter or digit directly before or after.
func standsAlone(text string, start, end int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:start])
	after, _ := utf8.DecodeRuneInString(text[end:])
	return !isWord(before) && !isWord(after)
}

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

func apply(text string, fate []byte) string {
	var b strings.Builder
	for i := range len(text) {
		switch {
		case fate[i] == shown:
			b.WriteByte(text[i])
		case fate[i] == hidden && (i == 0 || fate[i-1] != hidden):
			b.WriteString(redacted)
		}
	}
	return b.String()
}

// oneLine replaces characters that end a line of the log, control a terminal or change the reading
// direction.
func oneLine(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return ' '
		}
		return r
	}, text)
}

// Set is the strings that no text may show. The list grows during the pull: tokens.
type Set struct {
	mu   sync.Mutex
	list []string
}

// Add adds strings; empty ones are left out.
func (s *Set) Add(more ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range more {
		if secret != "" && !slices.Contains(s.list, secret) {
			s.list = append(s.list, secret)
		}
	}
}

// All returns a copy of the strings.
func (s *Set) All() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// Shorten cuts a long message of a registry.
func Shorten(text string) string {
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "…"
	}
	return text
}

// OfProxies are the credentials of the proxies in the environment. net/http may quote them.
func OfProxies() []string {
	var list []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		_, rest, found := strings.Cut(os.Getenv(name), "://")
		if !found {
			rest = os.Getenv(name)
		}
		at := strings.LastIndexByte(rest, '@')
		if at < 0 {
			continue
		}
		list = append(list, rest[:at])
		if _, password, found := strings.Cut(rest[:at], ":"); found {
			// A character that should have been escaped may end the password for some parsers. Then
			// a part of it is in the message.
			list = append(list, password)
			for _, piece := range strings.FieldsFunc(password, func(r rune) bool { return strings.ContainsRune("/@?#:", r) }) {
				if len(piece) >= shortSecret {
					list = append(list, piece)
				}
			}
			if plain, err := url.PathUnescape(password); err == nil {
				list = append(list, plain)
			}
		}
	}
	return list
}

// cleanError shows another text than the error it wraps, which would show a secret. Its class is
// kept.
type cleanError struct {
	text string
	err  error
}

func (e *cleanError) Error() string { return e.text }
func (e *cleanError) Unwrap() error { return e.err }

// Clean returns err with a scrubbed text.
func Clean(err error, secrets []string) error {
	if err == nil {
		return nil
	}
	if text := Scrub(err.Error(), secrets); text != err.Error() {
		return &cleanError{text: text, err: err}
	}
	return err
}
