package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
	"github.com/pinfold-run/pinfold/internal/image/reference"
)

const (
	// barEvery is how often the bar on a terminal is drawn.
	barEvery = 200 * time.Millisecond
	// lineEvery is the time between two lines where there is no terminal.
	lineEvery = 5 * time.Second
)

// showPull shows how far the pull of an image is until ctx ends. If the daemon cannot say, it
// shows nothing.
func (n *node) showPull(ctx context.Context, t *tool, name string) {
	full, err := reference.Normalize(name)
	if err != nil {
		return
	}
	terminal := t.isTerminal(t.errs)
	every := lineEvery
	if terminal {
		every = barEvery
		defer func() { fmt.Fprint(t.errs, "\r\x1b[K") }()
	}
	show := pullProgress{name: full, began: t.now()}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		list, err := n.own.ListOperations(ctx, &pinfoldv1.ListOperationsRequest{Object: full})
		if err != nil {
			continue
		}
		for _, op := range list.GetOperations() {
			if op.GetName() != "PullImage" || op.GetObject() != "image "+full {
				continue
			}
			if terminal {
				fmt.Fprint(t.errs, "\r\x1b[K"+show.line(op.GetPull(), t.now(), t.width()))
			} else {
				fmt.Fprintln(t.errs, show.line(op.GetPull(), t.now(), 0))
			}
			break
		}
	}
}

// pullProgress makes the lines that show how far a pull is.
type pullProgress struct {
	name  string
	began time.Time
	// first is how much was on the node when it was first asked, which does not count for the rate.
	first int64
	asked bool
}

const barLength = 20

// line is one line. It is not longer than width, which is 0 for any length.
func (s *pullProgress) line(p *pinfoldv1.PullProgress, now time.Time, width int) string {
	text := visible(s.name) + ": "
	if p.GetLayers() == 0 {
		text += "looking up the manifest"
	} else {
		if !s.asked {
			s.first, s.began, s.asked = p.GetBytes(), now, true
		}
		have, all := max(p.GetBytes(), 0), max(p.GetTotalBytes(), 1)
		part := min(float64(have)/float64(all), 1)
		filled := int(part * barLength)
		text += fmt.Sprintf("[%s%s] %3.0f%%  %s of %s  %d of %d layers unpacked", strings.Repeat("=", filled), strings.Repeat(" ", barLength-filled),
			part*100, sizeText(uint64(have)), sizeText(uint64(max(p.GetTotalBytes(), 0))), p.GetLayersDone(), p.GetLayers())
		if spent := now.Sub(s.began).Seconds(); spent > 0 && have > s.first {
			text += fmt.Sprintf("  %s/s", sizeText(uint64(float64(have-s.first)/spent)))
		}
	}
	if runes := []rune(text); width > 0 && len(runes) >= width {
		// The end says more than the image's name.
		return string(runes[len(runes)-width+1:])
	}
	return text
}

// isTerminal tells whether what is written goes to a terminal.
func (t *tool) isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// width is how many columns the terminal of standard error has.
func (t *tool) width() int {
	if f, ok := t.errs.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
	}
	return 80
}
