package image_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/image/registry"
)

// mirrored is a configuration that asks m before origin for registry.invalid.
func mirrored(t *testing.T, m, origin *hub) string {
	t.Helper()
	return hostFiles(t, map[string]string{
		"registry.invalid/hosts.toml": fmt.Sprintf("server = %q\n[host.%q]\n", origin.URL, m.URL),
	})
}

func onBlobs(f func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		f(w, r)
		return true
	}
}

// endless writes until the client disconnects.
func endless(w http.ResponseWriter, r *http.Request, piece string) {
	for r.Context().Err() == nil {
		if _, err := w.Write(bytes.Repeat([]byte(piece), 1000)); err != nil {
			return
		}
	}
}

// hang sends no answer. The server notices that a client has disconnected only after it has read
// the request's body.
func hang(_ http.ResponseWriter, r *http.Request) bool {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
	return true
}

func TestAMirrorThatHangsCostsOneWaitAndIsRemembered(t *testing.T) {
	const stall = 500 * time.Millisecond
	mirror, origin := newHub(t), newHub(t)
	var layers []builtLayer
	for i := range 4 {
		layers = append(layers, layerOf(t, reg(strconv.Itoa(i), "")))
	}
	origin.push(t, "app:1", imageOf(t, "a", layers...))
	origin.push(t, "app:2", imageOf(t, "b", layers[0]))
	mirror.setFault(hang)
	s := open(t, image.Config{RegistryConfigDir: mirrored(t, mirror, origin), StallTimeout: stall})
	pull(t, s, "registry.invalid/app:1")
	equal(t, "requests to the mirror", mirror.count(""), 1)
	pull(t, s, "registry.invalid/app:2")
	equal(t, "requests to the mirror after another pull", mirror.count(""), 1)
}

func TestAMirrorThatHangsOnlyWithLayersCostsOneWait(t *testing.T) {
	mirror, origin := newHub(t), newHub(t)
	var layers []builtLayer
	for i := range 8 {
		layers = append(layers, layerOf(t, reg(strconv.Itoa(i), "")))
	}
	img := imageOf(t, "a", layers...)
	origin.push(t, "app:1", img)
	mirror.push(t, "app:1", img)
	mirror.setFault(onBlobs(func(w http.ResponseWriter, r *http.Request) { hang(w, r) }))
	s := open(t, image.Config{RegistryConfigDir: mirrored(t, mirror, origin), StallTimeout: time.Second})
	began := time.Now()
	pull(t, s, "registry.invalid/app:1")
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("took %v", took)
	}
	if n := mirror.count("GET /v2/app/blobs/"); n > 4 {
		t.Errorf("%d requests to the mirror", n)
	}
}

func TestAMirrorThatBeginsAnAnswerAndHangsHasNoMoreTimeThanOneThatDoesNotBegin(t *testing.T) {
	mirror, origin := newHub(t), newHub(t)
	img := imageOf(t, "a", layerOf(t, reg("a", "")))
	mirror.push(t, "app:1", img)
	origin.push(t, "app:1", img)
	mirror.setFault(onBlobs(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "500")
		_, _ = w.Write([]byte{0x1f})
		_ = http.NewResponseController(w).Flush()
		hang(w, r)
	}))
	s := open(t, image.Config{RegistryConfigDir: mirrored(t, mirror, origin), StallTimeout: 5 * time.Minute})
	pull(t, s, "registry.invalid/app:1")
	equal(t, "blobs that the mirror was asked for", mirror.count("GET /v2/app/blobs/"), 1)
}

func TestASlowMirrorIsAskedAgainWhenNoOtherServerHasTheImage(t *testing.T) {
	mirror, origin := newHub(t), newHub(t)
	mirror.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	var n atomic.Int64
	mirror.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if n.Add(1) == 1 {
			return hang(w, r)
		}
		return false
	})
	// The mirror's first answer is too slow. The origin does not have the image.
	s := open(t, image.Config{RegistryConfigDir: mirrored(t, mirror, origin), StallTimeout: 12 * time.Second})
	pull(t, s, "registry.invalid/app:1")
}

func TestARegistryThatHangsDoesNotHoldTheDownloadsOfOthers(t *testing.T) {
	a, b := newHub(t), newHub(t)
	refA := a.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("1", "")), layerOf(t, reg("2", "")), layerOf(t, reg("3", "")), layerOf(t, reg("4", ""))))
	refB := b.push(t, "app:1", imageOf(t, "b", layerOf(t, reg("b", ""))))
	gate := make(chan struct{})
	a.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			<-gate
		}
		return false
	})
	s := open(t, image.Config{})
	done := make(chan error, 1)
	go func() { _, err := s.Pull(t.Context(), refA, nil); done <- err }()
	waitFor(t, func() bool { return a.count("GET /v2/app/blobs/") >= 1 })
	pull(t, s, refB)
	close(gate)
	must(t, <-done)
}

func TestABusyRegistryIsLeftAloneForAsLongAsItSays(t *testing.T) {
	for name, header := range map[string]func() string{
		"seconds": func() string { return "1" },
		"date":    func() string { return time.Now().Add(2 * time.Second).UTC().Format(http.TimeFormat) },
		"nothing": func() string { return "" },
		"rubbish": func() string { return "soon" },
	} {
		for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			t.Run(fmt.Sprintf("%s with %d", name, code), func(t *testing.T) {
				h := newHub(t)
				ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", "")), layerOf(t, reg("b", ""))))
				var first, second atomic.Int64
				h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
					if first.CompareAndSwap(0, time.Now().UnixNano()) {
						w.Header().Set("Retry-After", header())
						w.WriteHeader(code)
						return true
					}
					second.CompareAndSwap(0, time.Now().UnixNano())
					return false
				})
				pull(t, open(t, image.Config{}), ref)
				if waited := time.Duration(second.Load() - first.Load()); waited < 400*time.Millisecond || waited > 5*time.Second {
					t.Errorf("asked again after %v", waited)
				}
			})
		}
	}
}

func TestARegistryThatIsBusyForTooLongEndsThePull(t *testing.T) {
	for _, header := range []string{"3600", "99999999999999999999", time.Now().Add(48 * time.Hour).UTC().Format(http.TimeFormat)} {
		h := newHub(t)
		h.setFault(func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		})
		if header == "99999999999999999999" {
			header = "3600" // more than a number is invalid, and costs a second or so each time
		}
		s := open(t, image.Config{})
		began := time.Now()
		_, err := s.Pull(t.Context(), h.host()+"/app:1", nil)
		expectError(t, err, errdefs.IsUnavailable, h.host())
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		if n := h.count(""); n > 5 {
			t.Errorf("%d requests", n)
		}
	}
}

func TestABusyMirrorIsPassedBy(t *testing.T) {
	mirror, origin := newHub(t), newHub(t)
	origin.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", "")), layerOf(t, reg("b", ""))))
	mirror.setFault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	pull(t, open(t, image.Config{RegistryConfigDir: mirrored(t, mirror, origin)}), "registry.invalid/app:1")
	equal(t, "requests to the mirror", mirror.count(""), 1)
}

// long: one table.
func TestWhatAMirrorSendsIsCheckedAndTheNextServerAsked(t *testing.T) {
	l, raw := bigLayer(t)
	img := imageOf(t, "a", l)
	other := append([]byte{}, raw...)
	other[len(other)/2] ^= 1
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"a page": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>please log in</html>")) },
		"a page compressed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write([]byte("<html>"))
			_ = z.Close()
		},
		"nothing":          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
		"no content":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"other bytes":      func(w http.ResponseWriter, r *http.Request) { serve(w, r, other) },
		"too little":       func(w http.ResponseWriter, r *http.Request) { serve(w, r, raw[:len(raw)-1]) },
		"too much":         func(w http.ResponseWriter, r *http.Request) { serve(w, r, append(bytes.Clone(raw), 0)) },
		"no end":           func(w http.ResponseWriter, r *http.Request) { endless(w, r, "x") },
		"a broken half":    func(w http.ResponseWriter, _ *http.Request) { half(w, other) },
		"half of the time": func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(other[:len(other)/2+10]); hang(w, r) },
		"another encoding": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			serve(w, r, raw)
		},
		"a redirect loop": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		},
		"a redirect to a file": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		"a redirect to nothing": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusFound) },
		"not found":             func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"forbidden":             func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"broken":                func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"an endless error": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			endless(w, r, "x")
		},
		"an endless header": func(w http.ResponseWriter, _ *http.Request) {
			for i := range 1000 {
				w.Header().Set("X-"+strconv.Itoa(i), strings.Repeat("x", 1000))
			}
			_, _ = w.Write(raw)
		},
		"a range unasked": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(raw)-1, len(raw)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(raw[5:])
		},
	} {
		t.Run(name, func(t *testing.T) {
			mirror, origin := newHub(t), newHub(t)
			mirror.push(t, "app:1", img)
			origin.push(t, "app:1", img)
			mirror.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				digest := l.digest()
				if !strings.HasSuffix(r.URL.Path, digest.String()) {
					return false
				}
				answer(w, r)
				return true
			})
			root := t.TempDir()
			s := open(t, image.Config{Root: root, RegistryConfigDir: mirrored(t, mirror, origin), StallTimeout: time.Second})
			pull(t, s, "registry.invalid/app:1")
			expectInventory(t, root, map[string]int{"layers": 1, "records": 1, "blobs": 2})
			if n := mirror.count("GET /v2/app/blobs/"); n > 20 {
				t.Errorf("%d requests to the mirror", n)
			}
		})
	}
}

func TestAManifestIsGotWhereHeadDoesNotTellIt(t *testing.T) {
	for name, head := range map[string]func(w http.ResponseWriter, digest string){
		"length 0": func(w http.ResponseWriter, _ string) {
			w.Header().Set("Content-Length", "0")
			w.Header().Set("Docker-Content-Digest", someDigest)
		},
		"another length": func(w http.ResponseWriter, digest string) {
			w.Header().Set("Content-Length", "17")
			w.Header().Set("Docker-Content-Digest", digest)
		},
		"a great length": func(w http.ResponseWriter, digest string) {
			w.Header().Set("Content-Length", "99999999")
			w.Header().Set("Docker-Content-Digest", digest)
		},
		"another digest": func(w http.ResponseWriter, _ string) {
			w.Header().Set("Content-Length", "100")
			w.Header().Set("Docker-Content-Digest", someDigest)
		},
		"no digest":            func(w http.ResponseWriter, _ string) { w.Header().Set("Content-Length", "100") },
		"rubbish for a digest": func(w http.ResponseWriter, _ string) { w.Header().Set("Docker-Content-Digest", "md5:x") },
		"a page":               func(w http.ResponseWriter, _ string) { w.Header().Set("Content-Type", "text/html") },
		"a closed connection":  func(http.ResponseWriter, string) { panic(http.ErrAbortHandler) },
		"501":                  func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusNotImplemented) },
		"405":                  func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusMethodNotAllowed) },
		"404":                  func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusNotFound) },
		"403":                  func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusForbidden) },
		"400":                  func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusBadRequest) },
		"500":                  func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusInternalServerError) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			img := imageOf(t, "a", layerOf(t, reg("a", "")))
			ref := h.push(t, "app:1", img)
			digest := img.digest(t)
			h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodHead {
					head(w, digest.String())
					return true
				}
				return false
			})
			pull(t, open(t, image.Config{}), ref)
			pull(t, open(t, image.Config{}), h.host()+"/app@"+digest.String())
		})
	}
}

// long: one table.
func TestAnEndlessAnswerEnds(t *testing.T) {
	img := imageOf(t, "a", layerOf(t, reg("a", "")))
	digest := img.digest(t)
	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"manifest by tag": func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/manifests/") {
				endless(w, r, " ")
				return true
			}
			return false
		},
		"manifest by digest": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, digest.String()) {
				endless(w, r, " ")
				return true
			}
			return false
		},
		"blob":  onBlobs(func(w http.ResponseWriter, r *http.Request) { endless(w, r, "x") }),
		"error": func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(403); endless(w, r, "x"); return true },
		"token": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/token" {
				endless(w, r, " ")
				return true
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
		"refusal": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
		"trickle": onBlobs(func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte("x"))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(50 * time.Millisecond) // as a slow attacker does
			}
		}),
		"token that hangs": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/token" {
				return hang(w, r)
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			// In an index, the image's own manifest is requested by its digest.
			ref := h.pushIndex(t, "app:1", builtIndex{images: []builtImage{img}})
			h.setFault(fault)
			began := time.Now()
			_, err := open(t, image.Config{StallTimeout: time.Second}).Pull(t.Context(), ref, &registry.Auth{Auth: basic})
			expectError(t, err, anyClass, h.host())
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			if n := h.count(""); n > 15 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestADownloadIsResumedWhateverAServerMakesOfRanges(t *testing.T) {
	l, raw := bigLayer(t)
	for name, rest := range map[string]func(w http.ResponseWriter, r *http.Request, from int){
		"the whole":     func(w http.ResponseWriter, _ *http.Request, _ int) { _, _ = w.Write(raw) },
		"the rest":      func(w http.ResponseWriter, r *http.Request, _ int) { serve(w, r, raw) },
		"from earlier":  func(w http.ResponseWriter, _ *http.Request, from int) { part(w, raw, from-1000, from-1000) },
		"another range": func(w http.ResponseWriter, _ *http.Request, from int) { part(w, raw, from+1000, from+1000) },
		"a lie":         func(w http.ResponseWriter, _ *http.Request, from int) { part(w, raw, from, from+1000) },
		"no range":      func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusPartialContent) },
		"416": func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			ref := h.push(t, "app:1", imageOf(t, "a", l))
			onLayer(t, h, l, func(w http.ResponseWriter, r *http.Request, n int) bool {
				var from int
				switch _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); {
				case n == 1:
					half(w, raw)
				case err == nil:
					rest(w, r, from)
				default:
					serve(w, r, raw)
				}
				return true
			})
			pull(t, open(t, image.Config{}), ref)
		})
	}
}

// part sends raw[from:] and claims that it begins at says.
func part(w http.ResponseWriter, raw []byte, says, from int) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", says, len(raw)-1, len(raw)))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(raw[from:])
}

func TestAnEncodingOfTheTransferIsUndoneAndOneOfTheBlobIsNot(t *testing.T) {
	l, raw := bigLayer(t)
	for name, answer := range map[string]func(w http.ResponseWriter){
		"of the transfer": func(w http.ResponseWriter) {
			z := gzip.NewWriter(w)
			_, _ = z.Write(raw)
			_ = z.Close()
		},
		"of the blob": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
			_, _ = w.Write(raw)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			ref := h.push(t, "app:1", imageOf(t, "a", l))
			onLayer(t, h, l, func(w http.ResponseWriter, _ *http.Request, _ int) bool {
				w.Header().Set("Content-Encoding", "gzip")
				answer(w)
				return true
			})
			pull(t, open(t, image.Config{}), ref)
		})
	}
}

func TestARedirectFromTLSToPlainHTTPIsFollowedForWhatADigestVouchesForOnly(t *testing.T) {
	h := newHub(t)
	h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	secure := tlsHub(t, h, nil)
	dir := hostFiles(t, map[string]string{"registry.invalid/hosts.toml": fmt.Sprintf("server = %q\nskip_verify = true", secure.URL)})
	away := func(part string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.TLS == nil || !strings.Contains(r.URL.Path, part) {
				return false
			}
			http.Redirect(w, r, h.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
	}
	h.setFault(away("/blobs/"))
	pull(t, open(t, image.Config{RegistryConfigDir: dir}), "registry.invalid/app:1")
	h.setFault(away("/manifests/1"))
	_, err := open(t, image.Config{RegistryConfigDir: dir}).Pull(t.Context(), "registry.invalid/app:1", nil)
	expectError(t, err, errdefs.IsUnavailable, "plain HTTP")
}

func TestACredentialGoesToNoTokenServerWithoutTLSIfTheRegistryHasIt(t *testing.T) {
	h := newHub(t)
	h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	secure := tlsHub(t, h, nil)
	dir := hostFiles(t, map[string]string{"registry.invalid/hosts.toml": fmt.Sprintf("server = %q\nskip_verify = true", secure.URL)})
	h.setFault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s"`, h.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	_, err := open(t, image.Config{RegistryConfigDir: dir}).Pull(t.Context(), "registry.invalid/app:1", &registry.Auth{Auth: basic})
	expectError(t, err, anyClass, "has no TLS")
	equal(t, "requests for tokens", h.count("GET /token")+h.count("POST /token"), 0)
}

func TestARegistryThatTricklesDoesNotHoldALayerThatAnotherHasToo(t *testing.T) {
	a, b := newHub(t), newHub(t)
	l, raw := bigLayer(t)
	refA := a.push(t, "app:1", imageOf(t, "a", l))
	refB := b.push(t, "app:1", imageOf(t, "b", l))
	gate := make(chan struct{})
	onLayer(t, a, l, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		for i := 0; i < len(raw); i += 8192 {
			_, _ = w.Write(raw[i:min(i+8192, len(raw))])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-gate:
			case <-r.Context().Done():
				return true
			case <-time.After(100 * time.Millisecond): // fast enough not to stall
			}
		}
		return true
	})
	root := t.TempDir()
	s := open(t, image.Config{Root: root, StallTimeout: time.Second})
	done := make(chan error, 1)
	go func() { _, err := s.Pull(t.Context(), refA, nil); done <- err }()
	waitFor(t, func() bool { return a.count("GET /v2/app/blobs/") >= 2 })
	began := time.Now()
	pull(t, s, refB)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	close(gate)
	must(t, <-done)
	expectInventory(t, root, map[string]int{"layers": 1, "records": 2, "blobs": 4})
}
