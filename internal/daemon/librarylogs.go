package daemon

import (
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"
)

// RouteLibraryLogs makes libraries write where the daemon's log goes: by themselves they write to standard error, and
// hang, with the locks they hold, when that is not read. It is called once, before the libraries are used.
func RouteLibraryLogs(log *slog.Logger, to io.Writer) {
	slog.SetDefault(log) // and with it package log, which net/http uses
	logrus.SetOutput(to)
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, to))
	klog.LogToStderr(false)
	klog.SetOutput(to)
}
