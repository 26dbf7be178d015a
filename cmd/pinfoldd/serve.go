package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/daemon"
	"github.com/pinfold-run/pinfold/internal/goroutines"
	"github.com/pinfold-run/pinfold/internal/inherited"
)

// serve serves until a signal.
func (p *process) serve(flags *config.Flags) error {
	c, err := flags.Load()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("must be run as root")
	}
	p.setLog(c.Config)
	log := p.log.Logger()
	daemon.RouteLibraryLogs(log)
	goroutines.OnSignal(c.State, "pinfoldd", func(path string, err error) {
		if err != nil {
			log.Error("what all goroutines do could not be written", "path", path, "error", err)
			return
		}
		log.Info("SIGUSR1: what all goroutines do was written to a file", "path", path)
	})
	if p.reset != nil {
		log.Warn("containers inherit attributes of the process that started the daemon", "error", p.reset)
	}
	for _, restriction := range inherited.Lasting() {
		log.Warn("containers inherit attributes of the process that started the daemon", "restriction", restriction)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err = daemon.Run(ctx, c.Config, daemon.Process{
		Version: version, Files: c.Files, Log: log, SetLog: p.setLog, Reload: p.hangups, Load: flags.Load, Manager: p.manager,
	})
	if err != nil {
		log.Error("pinfoldd ended", "error", err)
		return errLogged
	}
	return nil
}

func (p *process) setLog(c *config.Config) { p.log.Configure(c.LogFormat == config.JSON, c.LogLevel) }

// errLogged is a failure that is in the log already.
var errLogged = errors.New("see the log")
