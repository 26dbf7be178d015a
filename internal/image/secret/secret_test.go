package secret

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

func TestNoUserQueryOrFragmentOfAURLIsShown(t *testing.T) {
	const sig = "X-Amz-Signature=abc123deadbeef"
	for _, text := range []string{
		`Get "https://h/p?` + sig + `": connection refused`,
		`Get "https://h/p?a=b\"c&` + sig + `": connection refused`,
		`Get "https://h/p?a=b c&` + sig + `": connection refused`,
		`see https://h/p?` + sig + `, or not`,
		`see https://h/p#access_token=abc123deadbeef`,
		`see HTTPS://h/p?` + sig,
		`see https:\/\/h\/p?` + sig,
		`parse "/v2/x?` + sig + `": no`,
		`h.example/p?` + sig,
		`proxyconnect tcp: dial http://user:abc123deadbeef@proxy:3128: refused`,
		`invalid proxy address "http://user:abc123/deadbeef@proxy": no`,
		`parse "http://u:p@abc123deadbeef@h/": no`,
		`you sent Basic ` + base64.StdEncoding.EncodeToString([]byte("abc123deadbeef:deadbeef")),
		`{"token": "abc123deadbeef"}`,
		`token=abc123deadbeef&x=y`,
	} {
		for _, secrets := range [][]string{nil, {"t"}, {"h"}, {"tt"}, {"http"}, {"://"}, {"?"}, {"s", "p"}} {
			if out := Scrub(text, secrets); strings.Contains(out, "abc123") || strings.Contains(out, "deadbeef") {
				t.Errorf("%s with secrets %q: %s", text, secrets, out)
			}
		}
	}
	for text, want := range map[string]string{
		`Get "https://h/p?a=b": refused`:                 `Get "https://h/p": refused`,
		`pull https://h/app@sha256:abc: no`:              `pull https://h/app@sha256:abc: no`,
		`pull https://u:p@h/app@sha256:abc: no`:          `pull https://h/app@sha256:abc: no`,
		`why? because`:                                   `why? because`,
		"two\nlines \x1b[31mred\x1b[0m \u202eturned":     "two; lines  [31mred [0m  turned",
		`no basic auth credentials, bearer is not basic`: `no basic auth credentials, bearer is not basic`,
	} {
		if out := Scrub(text, nil); out != want {
			t.Errorf("%q: %q, want %q", text, out, want)
		}
	}
}

func TestAShortSecretIsNoPartOfAWord(t *testing.T) {
	for text, want := range map[string]string{
		"http test at the host":     "http test at the host",
		"you sent t:t":              "you sent [redacted]:[redacted]",
		"unauthorized: bad 't'":     "unauthorized: bad '[redacted]'",
		"Get \"http://t:t@h/p\": x": "Get \"http://h/p\": x",
	} {
		if out := Scrub(text, []string{"t"}); out != want {
			t.Errorf("%q: %q, want %q", text, out, want)
		}
	}
}

func TestTheCredentialsOfAProxyAreNotShown(t *testing.T) {
	for _, proxy := range []string{
		"http://user:pr0xyPass@127.0.0.1:1", "http://user:pr0xyPass@[::1", "user:pr0xyPass@127.0.0.1:1",
		"http://user:pr0xy%50ass@127.0.0.1:1/", "http://user:pr0xyPass/x@127.0.0.1:1", "http://u:pr0xyPass@x@127.0.0.1:1",
	} {
		t.Setenv("https_proxy", proxy)
		_, err := url.Parse(proxy)
		for _, text := range []string{
			fmt.Sprint(err), fmt.Sprintf("invalid proxy address %q: %v", proxy, err), "no such user:pr0xyPass", "pr0xyPass is wrong",
		} {
			if out := Scrub(text, OfProxies()); strings.Contains(out, "pr0xyPass") || strings.Contains(out, "pr0xy%50ass") {
				t.Errorf("%s: %s", proxy, out)
			}
		}
	}
}

// TestNoSecretIsShownInAnyFormInAnyText is a property of random secrets in random surroundings.
func TestNoSecretIsShownInAnyFormInAnyText(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	const letters = `abcXYZ0189+/=._~-%&?#@:"'\ <>{}[]é` + "\n\t"
	runes := []rune(letters)
	random := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteRune(runes[rnd.Intn(len(runes))])
		}
		return b.String()
	}
	for range 20_000 {
		secret, sig := random(4+rnd.Intn(12)), strconv.FormatInt(rnd.Int63()|1<<60, 36)
		basic := base64.StdEncoding.EncodeToString([]byte("user" + random(2) + ":" + secret))
		quoted, _ := json.Marshal(secret)
		forms := []string{
			secret, strconv.Quote(secret), string(quoted), url.QueryEscape(secret), url.PathEscape(secret),
			basic,
			"http://user:" + url.PathEscape(secret) + "@h/",
		}
		text := random(5) + " " + forms[rnd.Intn(len(forms))] + " " + random(5) +
			fmt.Sprintf(" Get %q: refused; ", "https://h/"+url.PathEscape(random(3))+"?"+random(3)+"X-Amz-Signature="+sig) + random(5)
		out := Scrub(text, []string{secret, basic})
		for _, form := range append(forms[:len(forms)-1], sig) {
			if strings.Contains(out, form) {
				t.Fatalf("%q of %q is shown: %q", form, text, out)
			}
		}
	}
}

func FuzzScrub(f *testing.F) {
	f.Add("t", `Get "https://h/p?`, `": refused`, "0123456789abcdef")
	f.Add("p?a=b", `you sent p?a=b https://`, ``, "0123456789abcdef")
	f.Fuzz(func(t *testing.T, secret, before, after, sig string) {
		if len(sig) < 8 || strings.Trim(sig, "0123456789abcdef") != "" || strings.Contains(before+after+secret, sig) {
			return
		}
		out := Scrub(before+" https://h/p?X-Amz-Signature="+sig+" "+secret+after, []string{secret})
		if strings.Contains(out, sig) {
			t.Errorf("the signature is shown: %q", out)
		}
		if len(secret) >= shortSecret && !strings.Contains(redacted, secret) && strings.Contains(strings.ReplaceAll(out, redacted, ""), secret) {
			t.Errorf("the secret %q is shown: %q", secret, out)
		}
		if strings.ContainsAny(out, "\n\x1b") {
			t.Errorf("control characters: %q", out)
		}
	})
}
