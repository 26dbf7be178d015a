package registry

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestADownHostIsRememberedUntilItAnswers(t *testing.T) {
	var s hostStates
	if s.isDown("a") {
		t.Error("an unknown host is down")
	}
	s.setDown("a")
	if !s.isDown("a") || s.isDown("b") {
		t.Errorf("a down: %v, b down: %v", s.isDown("a"), s.isDown("b"))
	}
	s.recover("a")
	if s.isDown("a") {
		t.Error("a host that answers is down")
	}
}

func TestTheLongestPauseCounts(t *testing.T) {
	var s hostStates
	s.pause("a", time.Minute)
	s.pause("a", time.Second)
	if left := s.paused("a"); left < 50*time.Second || left > time.Minute {
		t.Errorf("the pause is %v", left)
	}
	if left := s.paused("b"); left > 0 {
		t.Errorf("another host pauses for %v", left)
	}
}

func TestDownloadsFromOneHostAreLimited(t *testing.T) {
	var s hostStates
	release, err := s.slot(t.Context(), "a", 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.slot(ctx, "a", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a second slot: %v", err)
	}
	if other, err := s.slot(t.Context(), "b", 1); err != nil {
		t.Errorf("another host: %v", err)
	} else {
		other()
	}
	release()
	if again, err := s.slot(t.Context(), "a", 1); err != nil {
		t.Errorf("after the release: %v", err)
	} else {
		again()
	}
}

func TestHostsAreForgottenWhenTheyAreManyAndIdle(t *testing.T) {
	var s hostStates
	s.setDown("down")
	if _, err := s.slot(t.Context(), "busy", 1); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxRemembered {
		s.recover(time.Duration(i).String())
	}
	if len(s.known) > maxRemembered {
		t.Errorf("%d hosts are remembered", len(s.known))
	}
	if !s.isDown("down") || s.known["busy"] == nil {
		t.Error("a host that is down or busy was forgotten")
	}
}
