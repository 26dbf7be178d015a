package migrate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const ours = "unix:///run/pinfold/pinfold.sock"

// kubeletIn makes a kubelet's files in a directory of the test.
func kubeletIn(t *testing.T, files map[string]string) Kubelet {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return Kubelet{Config: filepath.Join(dir, "config.yaml"), dir: dir}
}

func (k Kubelet) contents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(k.dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(data)
	}
	return all
}

// kubelets are the files of kubelets, before and after.
var kubelets = []struct {
	name         string
	before, want map[string]string
}{
	{
		"no runtime is named",
		map[string]string{"config.yaml": "kind: KubeletConfiguration\n# a comment\nmaxPods: 50"},
		map[string]string{"config.yaml": "kind: KubeletConfiguration\n# a comment\nmaxPods: 50\ncontainerRuntimeEndpoint: " + ours + "\n"},
	},
	{
		"a key",
		map[string]string{"config.yaml": "a: 1\ncontainerRuntimeEndpoint: unix:///run/containerd/containerd.sock # old\nb:\n  containerRuntimeEndpoint: mine\n"},
		map[string]string{"config.yaml": "a: 1\ncontainerRuntimeEndpoint: " + ours + "\nb:\n  containerRuntimeEndpoint: mine\n"},
	},
	{
		"a flag, which counts more",
		map[string]string{
			"config.yaml":       "containerRuntimeEndpoint: \"\"\n",
			"kubeadm-flags.env": `KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///var/run/containerd/containerd.sock --x=y"` + "\n",
		},
		map[string]string{
			"config.yaml":       "containerRuntimeEndpoint: " + ours + "\n",
			"kubeadm-flags.env": `KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=` + ours + ` --x=y"` + "\n",
		},
	},
	{
		"an instance of kubeadm, which counts more",
		map[string]string{
			"config.yaml": "containerRuntimeEndpoint: \"\"\n", "instance-config.yaml": "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix:///run/crio/crio.sock\n",
		},
		map[string]string{
			"config.yaml": "containerRuntimeEndpoint: " + ours + "\n", "instance-config.yaml": "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: " + ours + "\n",
		},
	},
}

func TestTheKubeletsRuntimeIsChangedWhereverItIsWrittenAndPutBack(t *testing.T) {
	for _, c := range kubelets {
		t.Run(c.name, func(t *testing.T) {
			k := kubeletIn(t, c.before)
			changed, err := k.Set(ours)
			if err != nil || len(changed) != len(c.want) {
				t.Fatalf("changed %v, %v", changed, err)
			}
			now := k.contents(t)
			for name, want := range c.want {
				if now[name] != want {
					t.Errorf("%s is %q, want %q", name, now[name], want)
				}
			}
			if info, err := os.Stat(k.Config); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("the mode is %v, %v", info.Mode(), err)
			}
			if again, err := k.Set(ours); err != nil || len(again) != 0 {
				t.Errorf("a second time: %v, %v", again, err)
			}
			back, err := k.Undo()
			if err != nil || len(back) != len(c.want) {
				t.Errorf("put back %v, %v", back, err)
			}
			now = k.contents(t)
			for name, before := range c.before {
				if now[name] != before {
					t.Errorf("%s is %q, was %q", name, now[name], before)
				}
			}
			if len(now) != len(c.before) {
				t.Errorf("left: %v", now)
			}
			if again, err := k.Undo(); err != nil || len(again) != 0 {
				t.Errorf("an undo without a change: %v, %v", again, err)
			}
		})
	}
}

// Between the two, kubeadm upgrades the node or an operator edits the files.
func TestAnUndoKeepsWhatWasEditedMeanwhile(t *testing.T) {
	for _, c := range kubelets {
		t.Run(c.name, func(t *testing.T) {
			k := kubeletIn(t, c.before)
			if _, err := k.Set(ours); err != nil {
				t.Fatal(err)
			}
			for name := range c.want {
				path := filepath.Join(k.dir, name)
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, append([]byte("# edited\n"), data...), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			if back, err := k.Undo(); err != nil || len(back) != len(c.want) {
				t.Errorf("put back %v, %v", back, err)
			}
			now := k.contents(t)
			for name, before := range c.before {
				if want := "# edited\n" + before; strings.TrimRight(now[name], "\n") != strings.TrimRight(want, "\n") {
					t.Errorf("%s is %q, want %q", name, now[name], want)
				}
			}
			if len(now) != len(c.before) {
				t.Errorf("left: %v", now)
			}
		})
	}
}

func TestAConfigurationInJSONIsNotMadeUnreadable(t *testing.T) {
	const text = "{\"kind\": \"KubeletConfiguration\"}\n"
	k := kubeletIn(t, map[string]string{"config.yaml": text})
	if _, err := k.Set(ours); err == nil || !strings.Contains(err.Error(), "JSON") {
		t.Errorf("%v", err)
	}
	if now := k.contents(t); len(now) != 1 || now["config.yaml"] != text {
		t.Errorf("%v", now)
	}
}

func TestAKubeletThatCannotBeReadIsNotChanged(t *testing.T) {
	k := kubeletIn(t, map[string]string{"kubeadm-flags.env": "x"})
	if _, err := k.Set(ours); err == nil || !strings.Contains(err.Error(), "config.yaml") {
		t.Errorf("no configuration: %v", err)
	}
	k = kubeletIn(t, map[string]string{"config.yaml": "a: 1\n"})
	if err := os.Mkdir(filepath.Join(k.dir, "instance-config.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Set(ours); err == nil {
		t.Error("a directory in place of a file was taken")
	}
	if data, _ := os.ReadFile(k.Config); string(data) != "a: 1\n" {
		t.Errorf("the configuration was changed: %q", data)
	}
	for _, endpoint := range []string{"unix:///a b", "unix:///a\nb", `unix:///"`, "unix:///$x"} {
		if _, err := kubeletIn(t, map[string]string{"config.yaml": ""}).Set(endpoint); err == nil {
			t.Errorf("the endpoint %q was taken", endpoint)
		}
	}
}
