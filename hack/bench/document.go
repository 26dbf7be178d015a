package main

import (
	"fmt"
	"html"
	"os"
	"path/filepath"
	"strings"
)

// The files that `make bench-docs` writes.
const (
	documentFile = "docs/benchmarks.md"
	pictureFile  = "docs/pictures/bench-start.svg"
	ratesFile    = "docs/pictures/bench-rate.svg"
)

// writeDocuments writes the document and its pictures of a file of results.
func writeDocuments(results string) error {
	r, err := read(results)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(pictureFile), 0o755); err != nil {
		return err
	}
	for path, text := range map[string]string{
		documentFile: r.document(),
		pictureFile:  r.startPicture(),
		ratesFile:    r.ratesPicture(),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r *result) document() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Benchmarks

%s, %s, kernel %s, %s. %d rounds; in each, all are measured one after the other, with the same image, network
configuration and plugins. **Compare within a table only**: other machines have other numbers.

"The floor" is the same work without a daemon: namespaces, the CNI plugins, an overlay, and the OCI runtime's create and start;
to end it, the runtime's delete and the plugins' DEL. Its container is as small as can be: one mount and no limits, where a container
of Pinfold has a dozen of mounts and all resource limits. So it is lower than anything that serves CRI can reach. Of its time to end a pod, runc's `+"`"+`delete --force`+"`"+` sleeps 100 ms. "All programs started" is Pinfold with `+"`cni_in_process = false`"+` and
`+"`exec_through_runtime = true`"+`.

Make your own as root: `+"`make bench-peers bench bench-docs`"+`, or in two minutes
`+"`make bench BENCH='-rounds 1 -pods 5 -crowd 0'`"+`. Everything is in scratch directories and namespaces of its own. `+"`-cri SOCKET`"+` measures
another runtime, too.

![Where the time of a pod start goes](pictures/bench-start.svg)

![Pods a second](pictures/bench-rate.svg)

`, r.Date, r.Machine, r.Kernel, strings.Join(r.Tools, ", "), r.Rounds)
	b.WriteString(strings.TrimRight(r.text(), "\n"))
	b.WriteString("\n\nMemory and descriptors are those of all processes that are there because of the pods, but for the pods' own programs.\n")
	return b.String()
}

// bar is a bar of several pieces.
type bar struct {
	name   string
	pieces []float64
}

// startPicture shows the calls of a pod start.
func (r *result) startPicture() string {
	const what = "user namespace, 1 container(s), 1 at a time"
	calls := []string{"RunPodSandbox", "CreateContainer", "StartContainer"}
	var bars []bar
	for _, subject := range r.Names {
		m := r.Values[subject][what]
		if len(m["pod ready"]) == 0 {
			continue
		}
		b := bar{name: subject}
		for _, call := range calls {
			b.pieces = append(b.pieces, median(m[call]))
		}
		if len(m[calls[0]]) == 0 {
			b.pieces = []float64{0, 0, 0, median(m["pod ready"])}
		}
		bars = append(bars, b)
	}
	return chart("A pod start with a user namespace, milliseconds", append(calls, "all together"), bars)
}

// ratesPicture shows pods a second against parallelism.
func (r *result) ratesPicture() string {
	var bars []bar
	for _, subject := range r.Names {
		for _, parallel := range []int{1, 8} {
			m := r.Values[subject][fmt.Sprintf("user namespace, 1 container(s), %d at a time", parallel)]
			if len(m["pods a second"]) > 0 {
				bars = append(bars, bar{fmt.Sprintf("%s, %d at a time", subject, parallel), []float64{median(m["pods a second"])}})
			}
		}
	}
	return chart("Pods started a second", []string{"pods a second"}, bars)
}

// chart draws bars one below the other. It is readable on light and dark ground.
func chart(title string, legend []string, bars []bar) string {
	const left, width, row = 230, 480, 26
	colours := []string{"#3572b0", "#d08a2b", "#4f9d5d", "#8a8a8a"}
	longest := 0.0
	for _, b := range bars {
		longest = max(longest, b.sum())
	}
	height := 60 + row*len(bars)
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
<style>text{fill:#222}@media (prefers-color-scheme:dark){text{fill:#ddd}}</style>
<text x="10" y="20" font-size="14">%s</text>
`, left+width+70, height, html.EscapeString(title))
	x := 10
	for i, name := range legend {
		fmt.Fprintf(&s, `<rect x="%d" y="30" width="10" height="10" fill="%s"/><text x="%d" y="39">%s</text>`+"\n", x, colours[i], x+14, html.EscapeString(name))
		x += 30 + 7*len(name)
	}
	for i, b := range bars {
		y := 52 + row*i
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+14, html.EscapeString(b.name))
		at := float64(left)
		for j, v := range b.pieces {
			w := v / max(longest, 1e-9) * width
			fmt.Fprintf(&s, `<rect x="%.1f" y="%d" width="%.1f" height="18" fill="%s"/>`+"\n", at, y, w, colours[j])
			at += w
		}
		fmt.Fprintf(&s, `<text x="%.1f" y="%d">%s</text>`+"\n", at+6, y+14, number(b.sum()))
	}
	return s.String() + "</svg>\n"
}

func (b bar) sum() (total float64) {
	for _, v := range b.pieces {
		total += v
	}
	return total
}
