package image_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/image/registry"
)

// tlsHub puts TLS before h. If clients has authorities, it asks for certificates of theirs.
func tlsHub(t *testing.T, h *hub, clients *x509.CertPool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h.Config.Handler)
	if clients != nil {
		s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that the test makes fail
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// certificate makes a client's certificate that is its own authority.
func certificate(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// hostFiles makes a directory of registry configuration. The keys of files are paths in it.
func hostFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	return root
}

func anyClass(error) bool { return true }

// long: one table.
func TestEveryKeyOfAHostsFileIsHonoured(t *testing.T) {
	h := newHub(t)
	h.push(t, "team/app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	cert, key := certificate(t)
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(cert)
	plain, strict := tlsHub(t, h, nil), tlsHub(t, h, clients)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: plain.Certificate().Raw}))
	secure := strings.TrimPrefix(plain.URL, "https://")
	picky := strings.TrimPrefix(strict.URL, "https://")
	files := map[string]string{"ca.pem": ca, "cert.pem": string(cert), "key.pem": string(key), "both.pem": string(cert) + string(key)}
	for name, c := range map[string]struct{ text, fails string }{
		"server":                   {`server = "http://HUB"`, ""},
		"empty server":             {"server = \"\"\n[host.\"http://HUB\"]", ""},
		"server without scheme":    {"server = \"SECURE\"\nca = \"ca.pem\"", ""},
		"server untrusted":         {`server = "https://SECURE"`, "certificate"},
		"skip_verify":              {"server = \"https://SECURE\"\nskip_verify = true", ""},
		"skip_verify false":        {"server = \"https://SECURE\"\nskip_verify = false", "certificate"},
		"ca":                       {"[host.\"https://SECURE\"]\nca = \"ca.pem\"", ""},
		"ca list":                  {"[host.\"https://SECURE\"]\nca = [\"ca.pem\"]", ""},
		"client with one file":     {"[host.\"https://PICKY\"]\nca = \"ca.pem\"\nclient = \"both.pem\"", ""},
		"client with files":        {"[host.\"https://PICKY\"]\nca = \"ca.pem\"\nclient = [\"both.pem\"]", ""},
		"client with pairs":        {"[host.\"https://PICKY\"]\nca = \"ca.pem\"\nclient = [[\"cert.pem\", \"key.pem\"]]", ""},
		"no client":                {"server = \"https://PICKY\"\nca = \"ca.pem\"", "certificate required"},
		"dial_timeout":             {"[host.\"http://HUB\"]\ndial_timeout = \"3s\"", ""},
		"override_path":            {"[host.\"http://HUB/other/v2/\"]\noverride_path = true", "404"},
		"override_path right":      {"[host.\"http://HUB/v2\"]\noverride_path = true", ""},
		"path that ends in v2":     {"[host.\"http://HUB/v2\"]", ""},
		"path without v2":          {"[host.\"http://HUB/x\"]", "404"},
		"no pull":                  {"[host.\"http://HUB\"]\ncapabilities = [\"push\"]", "no such host"},
		"pull without resolve":     {"[host.\"http://HUB\"]\ncapabilities = [\"pull\"]", "no such host"},
		"pull and resolve":         {"[host.\"http://HUB\"]\ncapabilities = [\"PULL\", \"resolve\"]", ""},
		"no capabilities":          {"[host.\"http://HUB\"]\ncapabilities = []", ""},
		"header only":              {"[host.\"http://HUB\".header]\nx-want = \"y\"", ""},
		"header and table":         {"[host.\"http://HUB\"]\n[host.\"http://HUB\".header]\nx-want = [\"y\"]", ""},
		"header inline":            {"host.\"http://HUB\".header = { X-Want = \"y\" }", ""},
		"all inline":               {"host = { \"http://HUB\" = { header = { X-Want = [\"n\", \"y\"] } } }", ""},
		"header of the server":     {"server = \"http://HUB\"\n[header]\nX-Want = \"y\"", ""},
		"header and everything":    {"[host.\"https://SECURE\"]\nskip_verify = true\ndial_timeout = \"5s\"\n[host.\"https://SECURE\".header]\nX-Want = \"y\"", ""},
		"plain with keys for TLS":  {"[host.\"http://HUB\"]\nskip_verify = true", ""},
		"TLS named as plain":       {"[host.\"http://SECURE\"]\nskip_verify = true", ""},
		"byte order mark and CRLF": {"\ufeff[host.\"http://HUB\"]\r\ncapabilities = [\"pull\", \"resolve\"] # both\r\n", ""},
		"nothing but a comment":    {"# nothing\n", "no such host"},
	} {
		t.Run(name, func(t *testing.T) {
			wantHeader := strings.Contains(strings.ToLower(name), "header")
			h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				if got := r.Header.Values("X-Want"); wantHeader && (len(got) == 0 || got[len(got)-1] != "y") {
					w.WriteHeader(http.StatusForbidden)
					return true
				}
				return false
			})
			text := strings.NewReplacer("HUB", h.host(), "SECURE", secure, "PICKY", picky).Replace(c.text)
			with := map[string]string{"registry.invalid/hosts.toml": text}
			for file, content := range files {
				with["registry.invalid/"+file] = content
			}
			_, err := open(t, image.Config{RegistryConfigDir: hostFiles(t, with)}).Pull(t.Context(), "registry.invalid/team/app:1", nil)
			if c.fails == "" {
				must(t, err)
				return
			}
			expectError(t, err, anyClass, c.fails)
		})
	}
}

func TestHostsAreAskedInTheOrderOfTheFile(t *testing.T) {
	var asked []string
	var files strings.Builder
	hubs := map[string]*hub{}
	for _, n := range []string{"third", "first", "second"} {
		h := newHub(t)
		hubs[n] = h
		h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
			if len(asked) == 0 || asked[len(asked)-1] != n {
				asked = append(asked, n)
			}
			w.WriteHeader(http.StatusNotFound)
			return true
		})
	}
	fmt.Fprintf(&files, "server = \"http://%s\"\n", hubs["third"].host())
	for _, n := range []string{"first", "second"} {
		fmt.Fprintf(&files, "[host.\"http://%s\"]\n", hubs[n].host())
	}
	cfg := hostFiles(t, map[string]string{"registry.invalid/hosts.toml": files.String()})
	_, err := open(t, image.Config{RegistryConfigDir: cfg}).Pull(t.Context(), "registry.invalid/app:1", nil)
	expectError(t, err, errdefs.IsNotFound)
	equal(t, "order", sprint(asked), "[first second third]")
}

func TestAWrongValueInAHostsFileIsRefusedByFileAndLine(t *testing.T) {
	h := newHub(t)
	h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	for name, c := range map[string]struct {
		line int
		text string
	}{
		"capabilities as a string":  {3, "\n[host.\"http://HUB\"]\ncapabilities = \"pull\""},
		"unknown capability":        {2, "[host.\"http://HUB\"]\ncapabilities = [\"pull\", \"fetch\"]"},
		"number as capability":      {2, "[host.\"http://HUB\"]\ncapabilities = [1]"},
		"skip_verify as a string":   {2, "[host.\"http://HUB\"]\nskip_verify = \"true\""},
		"override_path as number":   {1, "override_path = 1"},
		"server as a list":          {1, "server = [\"http://HUB\"]"},
		"server of another scheme":  {1, "server = \"ftp://HUB\""},
		"server without host":       {1, "server = \"https:///v2\""},
		"server with a user":        {1, "server = \"http://user:" + password + "@HUB\""},
		"server with a query":       {1, "server = \"http://HUB/?token=" + password + "\""},
		"host of another scheme":    {2, "\n[host.\"unix:///run/x\"]"},
		"host that is no URL":       {1, "[host.\"http://[::1\"]"},
		"empty host":                {1, "[host.\"\"]"},
		"host as a value":           {1, "host = \"http://HUB\""},
		"host's value":              {1, "host.\"http://HUB\" = true"},
		"list of hosts":             {1, "[[host]]\nserver = \"x\""},
		"ca as a number":            {1, "ca = 1"},
		"ca that is not there":      {1, "ca = \"none.pem\""},
		"ca that is no certificate": {1, "ca = \"hosts.toml\""},
		"client as a table":         {1, "client = { cert = \"x\" }"},
		"client with three":         {1, "client = [[\"a\", \"b\", \"c\"]]"},
		"client that is not there":  {1, "client = \"none.pem\""},
		"dial_timeout as a number":  {1, "dial_timeout = 10"},
		"dial_timeout of no unit":   {1, "dial_timeout = \"10\""},
		"negative dial_timeout":     {1, "dial_timeout = \"-1s\""},
		"header as a number":        {2, "[header]\nX-A = 1"},
		"header as a list":          {1, "header = [\"X-A: b\"]"},
		"header of numbers":         {2, "[header]\nX-A = [\"" + password + "\", 2]"},
		"header with a newline":     {2, "[header]\nX-A = \"" + password + "\\nX-B: c\""},
		"name of no header":         {2, "[header]\n\"X A\" = \"b\""},
		"a key twice":               {2, "server = \"http://HUB\"\nserver = \"http://HUB\""},
		"no TOML":                   {2, "server = \"http://HUB\"\n[host."},
	} {
		t.Run(name, func(t *testing.T) {
			h.forget()
			dir := hostFiles(t, map[string]string{h.host() + "/hosts.toml": strings.ReplaceAll(c.text, "HUB", h.host())})
			_, err := open(t, image.Config{RegistryConfigDir: dir}).Pull(t.Context(), h.host()+"/app:1", nil)
			expectError(t, err, errdefs.IsFailedPrecondition, fmt.Sprintf("%s/hosts.toml:%d: ", h.host(), c.line))
			expectNoLeak(t, err.Error(), password)
			equal(t, "requests", h.count(""), 0)
		})
	}
}

func TestAnUnknownKeyOfAHostsFileIsWarnedOfOnceForEachContent(t *testing.T) {
	h := newHub(t)
	h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	text := "[host.\"http://" + h.host() + "\"]\nskip-verify = true\n[plugins]\na = 1"
	dir := hostFiles(t, map[string]string{"registry.invalid/hosts.toml": text})
	out, logger := newLog()
	s := open(t, image.Config{RegistryConfigDir: dir, Log: logger})
	pull(t, s, "registry.invalid/app:1")
	pull(t, s, "registry.invalid/app:1")
	equal(t, "warnings", strings.Count(out.String(), "unknown keys"), 1)
	for _, part := range []string{"hosts.toml:2", "skip-verify", "hosts.toml:3"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %s in %s", part, out)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "registry.invalid/hosts.toml"), []byte(text+"\nb = 2"), 0o644))
	pull(t, s, "registry.invalid/app:1")
	equal(t, "warnings", strings.Count(out.String(), "unknown keys"), 2)
}

func TestTheDirectoryOfARegistryIsFoundAsContainerdFindsIt(t *testing.T) {
	h := newHub(t)
	h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	good := "server = \"http://" + h.host() + "\""
	const bad = "server = \"http://127.0.0.1:1\""
	empty := t.TempDir()
	for name, c := range map[string]struct{ list, ref string }{
		"host":          {hostFiles(t, map[string]string{"registry.invalid/hosts.toml": good, "_default/hosts.toml": bad}), "registry.invalid/app:1"},
		"default":       {hostFiles(t, map[string]string{"_default/hosts.toml": good}), "registry.invalid/app:1"},
		"port":          {hostFiles(t, map[string]string{"registry.invalid:5000/hosts.toml": good, "registry.invalid/hosts.toml": bad}), "registry.invalid:5000/app:1"},
		"escaped port":  {hostFiles(t, map[string]string{"registry.invalid_5000_/hosts.toml": good, "registry.invalid:5000/hosts.toml": bad}), "registry.invalid:5000/app:1"},
		"second":        {empty + ":" + hostFiles(t, map[string]string{"registry.invalid/hosts.toml": good}), "registry.invalid/app:1"},
		"second exists": {"/does/not/exist:" + hostFiles(t, map[string]string{"registry.invalid/hosts.toml": good}), "registry.invalid/app:1"},
		"first wins":    {hostFiles(t, map[string]string{"registry.invalid/hosts.toml": good}) + ":" + hostFiles(t, map[string]string{"registry.invalid/hosts.toml": bad}), "registry.invalid/app:1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, image.Config{RegistryConfigDir: c.list}).Pull(t.Context(), c.ref, nil)
			must(t, err)
		})
	}
	s := open(t, image.Config{RegistryConfigDir: empty})
	s.SetRegistryConfigDir(hostFiles(t, map[string]string{"registry.invalid/hosts.toml": good}))
	_, err := s.Pull(t.Context(), "registry.invalid/app:1", nil)
	must(t, err)
	file := filepath.Join(empty, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	err = registry.CheckConfigDirs(empty + ":/does/not/exist:" + file)
	expectError(t, err, anyClass, "/does/not/exist", "file is not a directory")
	must(t, registry.CheckConfigDirs(empty+":"+filepath.Dir(empty)))
	must(t, registry.CheckConfigDirs(""))
}

func TestCertificatesLaidOutAsForDockerAreUsed(t *testing.T) {
	h := newHub(t)
	h.push(t, "team/app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	cert, key := certificate(t)
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(cert)
	s := tlsHub(t, h, clients)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "https://"))
	must(t, err)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	dir := hostFiles(t, map[string]string{
		"127.0.0.1_" + port + "_/ca.crt": ca, "127.0.0.1_" + port + "_/node.cert": string(cert), "127.0.0.1_" + port + "_/node.key": string(key),
	})
	pull(t, open(t, image.Config{RegistryConfigDir: dir}), "127.0.0.1:"+port+"/team/app:1")
	must(t, os.WriteFile(filepath.Join(dir, "127.0.0.1_"+port+"_", "ca.crt"), []byte("none"), 0o644))
	_, err = open(t, image.Config{RegistryConfigDir: dir}).Pull(t.Context(), "127.0.0.1:"+port+"/team/app:1", nil)
	expectError(t, err, errdefs.IsFailedPrecondition, "ca.crt")
}

func TestHeadersAndCredentialsStayWithTheirServer(t *testing.T) {
	h, store := newHub(t), newHub(t)
	l := layerOf(t, reg("a", ""))
	h.push(t, "app:1", imageOf(t, "a", l))
	store.push(t, "app:1", imageOf(t, "a", l))
	var leaked []string
	store.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		for _, name := range []string{"Authorization", "X-Private", "Cookie"} {
			if r.Header.Get(name) != "" {
				leaked = append(leaked, name)
			}
		}
		return false
	})
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, store.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	dir := hostFiles(t, map[string]string{"registry.invalid/hosts.toml": "[host.\"" + h.URL + "\".header]\nX-Private = \"" + password + "\"\nCookie = \"a=b\""})
	_, err := open(t, image.Config{RegistryConfigDir: dir}).Pull(t.Context(), "registry.invalid/app:1", &registry.Auth{Auth: basic})
	must(t, err)
	equal(t, "headers that went elsewhere", sprint(leaked), "[]")
	if store.count("GET ") == 0 {
		t.Error("the redirect was not followed")
	}
}
