package steps

// Phase is a place within a step at which a fail point may be reached.
type Phase string

// The phases of a step.
const (
	Before Phase = "before"
	During Phase = "during"
	After  Phase = "after"
)

// reach is called at both ends of every step, done and undone. It does nothing unless the program was built with
// the tag "failpoints" (failpoint_on.go).
func reach(op Operation, step string, phase Phase) error {
	if !failpointsBuilt {
		return nil
	}
	return reached(op.Name, step, phase)
}
