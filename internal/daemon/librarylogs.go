package daemon

import (
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"
)

// RouteLibraryLogs sends the logs of libraries to the daemon's log. By default they write to
// standard error. If that is not read, they block with their locks held. Call it once, before the
// libraries are used.
func RouteLibraryLogs(log *slog.Logger, to io.Writer) {
	slog.SetDefault(log) // also sets package log, which net/http uses
	logrus.SetOutput(to)
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, to))
	klog.LogToStderr(false)
	klog.SetOutput(to)
}
