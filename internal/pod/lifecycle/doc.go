// Package lifecycle makes, starts, changes, stops and removes pods and containers.
//
// Each operation is a list of named steps that package steps runs. A step has Do and Undo; what Undo needs is in the
// record. The same list undoes a failure, cleans up after a crash, and removes the object in the end: to remove a
// sandbox is to undo the steps that made it.
package lifecycle
