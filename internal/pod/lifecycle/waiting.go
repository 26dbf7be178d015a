package lifecycle

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pinfold-run/pinfold/internal/steps"
)

// stillRunning explains the end of a wait: which step of the operation on the object is in progress and since when.
// Errors that are not the end of ctx are returned as they are.
func stillRunning(ctx context.Context, engine *steps.Engine, err error, object string) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	var where []string
	for _, f := range engine.Flights(object) {
		where = append(where, fmt.Sprintf("%s: %s: step %s since %s", f.Operation, f.Object, f.Step,
			time.Since(f.StepBegan).Round(time.Millisecond)))
	}
	if len(where) == 0 {
		return err
	}
	return fmt.Errorf("the request ended before the work, which goes on (%s): %w", strings.Join(where, "; "), ctx.Err())
}
