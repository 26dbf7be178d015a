package steps

// Phase is a place within a step that has a fail point.
type Phase string

// The phases of a step.
const (
	Before Phase = "before"
	During Phase = "during"
	After  Phase = "after"
)

// Point is a fail point within a step, between two changes of the system. It is that of phase After
// of an operation and a step with these names.
func Point(operation, place string) error {
	if !failpointsBuilt {
		return nil
	}
	return passed(operation, place)
}

// reach is called before and after every Do and Undo. It does nothing unless the program was built
// with the tag "failpoints" (failpoint_on.go).
func reach(op Operation, step string, phase Phase) error {
	if !failpointsBuilt {
		return nil
	}
	return reached(op.Name, step, phase)
}
