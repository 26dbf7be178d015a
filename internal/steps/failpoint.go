package steps

// Phase is a place within a step that has a fail point.
type Phase string

// The phases of a step.
const (
	Before Phase = "before"
	During Phase = "during"
	After  Phase = "after"
)

// reach is called before and after every Do and Undo. It does nothing unless the program was built
// with the tag "failpoints" (failpoint_on.go).
func reach(op Operation, step string, phase Phase) error {
	if !failpointsBuilt {
		return nil
	}
	return reached(op.Name, step, phase)
}
