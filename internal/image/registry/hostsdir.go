package registry

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/pinfold-run/pinfold/internal/regular"
)

// maxHostsFile limits a hosts.toml, and a file of certificates or keys that it names, in bytes.
const maxHostsFile = 1 << 20

// CheckConfigDirs checks the directories in list, separated by colons as in containerd's
// config_path. If one is missing, pulls would not use a mirror that is configured there.
func CheckConfigDirs(list string) error {
	var errs []error
	for _, dir := range filepath.SplitList(list) {
		fi, err := os.Stat(dir)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !fi.IsDir():
			errs = append(errs, fmt.Errorf("%s is not a directory", dir))
		}
	}
	return errors.Join(errs...)
}

// hostDir finds the directory of a registry host, as containerd does: in the first directory of the
// list that has HOST_PORT_, HOST:PORT or _default. "" if none has.
func hostDir(list, host string) (string, error) {
	names := []string{host, "_default"}
	if i := strings.LastIndex(host, ":"); i > 0 {
		names = append([]string{host[:i] + "_" + host[i+1:] + "_"}, names...)
	}
	for _, dir := range filepath.SplitList(list) {
		for _, name := range names {
			path := filepath.Join(dir, name)
			fi, err := os.Stat(path)
			switch {
			case err == nil && fi.IsDir():
				return path, nil
			case err == nil:
				return "", fmt.Errorf("%s is not a directory", path)
			case !errors.Is(err, fs.ErrNotExist):
				return "", err
			}
		}
	}
	return "", nil
}

// hostConfigs are the hosts that may have the images of a registry host, in the order to ask them.
func (c *Client) hostConfigs(host string) ([]hostConfig, error) {
	configs := []hostConfig{{resolve: true, pull: true}}
	dir, err := hostDir(*c.dirs.Load(), host)
	if err != nil {
		return nil, err
	}
	if dir != "" {
		if configs, err = c.readHostDir(dir); err != nil {
			return nil, err
		}
	}
	if last := &configs[len(configs)-1]; last.host == "" {
		last.path = "/v2"
		switch {
		case host == "docker.io":
			last.scheme, last.host = "https", "registry-1.docker.io"
		// containerd would try TLS first. Here a loopback registry without hosts.toml gets plain
		// HTTP at once.
		case docker.IsLocalhost(host) && !strings.HasSuffix(host, ":443"):
			last.scheme, last.host = "http", host
		default:
			last.scheme, last.host = "https", host
		}
	}
	return configs, nil
}

// CheckHosts reads the files of all registry hosts in the directories of list, as pulls do, and
// returns what is wrong with them.
func CheckHosts(list string) []error {
	var wrong []error
	for _, dir := range filepath.SplitList(list) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			wrong = append(wrong, err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if fi, err := os.Stat(path); err != nil || !fi.IsDir() {
				continue
			}
			_, unknown, _, err := readHosts(path)
			if err != nil {
				wrong = append(wrong, err)
			}
			if len(unknown) > 0 {
				wrong = append(wrong, fmt.Errorf("unknown keys, which are ignored: %s", strings.Join(unknown, ", ")))
			}
		}
	}
	return wrong
}

// readHosts reads hosts.toml. If that is missing or empty, it reads certificates in Docker's
// layout.
func readHosts(dir string) (configs []hostConfig, unknown []string, data []byte, err error) {
	file := filepath.Join(dir, "hosts.toml")
	data, err = regular.Read(file, maxHostsFile)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(data) == 0:
		configs, err = certificateFiles(dir)
	case err == nil:
		configs, unknown, err = parseHostsFile(file, data)
	}
	return configs, unknown, data, err
}

// readHostDir reads the configuration of a host, and logs what it does not know.
func (c *Client) readHostDir(dir string) ([]hostConfig, error) {
	configs, unknown, data, err := readHosts(dir)
	if err != nil || len(unknown) == 0 {
		return configs, err
	}
	file := filepath.Join(dir, "hosts.toml")
	sum := sha256.Sum256(data)
	if old, known := c.hosts.warnedOf.Swap(file, sum); !known || old != sum { // once for each content
		c.Log.Warn("hosts.toml has unknown keys, which are ignored", "keys", strings.Join(unknown, ", "))
	}
	return configs, nil
}

// certificateFiles reads Docker's layout: *.crt are authorities, *.cert with *.key are for the
// client.
func certificateFiles(dir string) ([]hostConfig, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	config := hostConfig{resolve: true, pull: true}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		base, client := strings.CutSuffix(path, ".cert")
		switch {
		case e.IsDir():
		case client:
			pair := [2]string{path}
			if _, err := os.Stat(base + ".key"); err == nil {
				pair[1] = base + ".key"
			}
			if _, err := loadPair(pair); err != nil {
				return nil, err
			}
			config.clientPairs = append(config.clientPairs, pair)
		case strings.HasSuffix(path, ".crt"):
			if err := checkCA(path); err != nil {
				return nil, err
			}
			config.caFiles = append(config.caFiles, path)
		}
	}
	return []hostConfig{config}, nil
}

func checkCA(file string) error {
	data, err := regular.Read(file, maxHostsFile)
	if err != nil {
		return err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return fmt.Errorf("%s has no certificate in PEM form", file)
	}
	return nil
}

func loadPair(pair [2]string) (tls.Certificate, error) {
	if pair[1] == "" {
		pair[1] = pair[0]
	}
	cert, err := tls.Certificate{}, errors.Join(regular.Check(pair[0]), regular.Check(pair[1]))
	if err == nil {
		cert, err = tls.LoadX509KeyPair(pair[0], pair[1])
	}
	if err != nil {
		return cert, fmt.Errorf("certificate %s with key %s: %w", pair[0], pair[1], err)
	}
	return cert, nil
}

// tlsConfig is nil if the configuration does not mention TLS.
func (c *hostConfig) tlsConfig() (*tls.Config, error) {
	if c.caFiles == nil && c.clientPairs == nil && c.skipVerify == nil {
		return nil, nil // see the comment of the function
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.skipVerify != nil {
		config.InsecureSkipVerify = *c.skipVerify // the operator asked for it
	}
	if c.caFiles != nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("the system's certificates: %w", err)
		}
		for _, file := range c.caFiles {
			data, err := regular.Read(file, maxHostsFile)
			if err != nil {
				return nil, err
			}
			pool.AppendCertsFromPEM(data)
		}
		config.RootCAs = pool
	}
	for _, pair := range c.clientPairs {
		cert, err := loadPair(pair)
		if err != nil {
			return nil, err
		}
		config.Certificates = append(config.Certificates, cert)
	}
	return config, nil
}
