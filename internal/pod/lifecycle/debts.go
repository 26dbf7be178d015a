package lifecycle

// Debts is the list of the objects that owe something; see package recovery.
type Debts interface {
	// Add puts a *Sandbox or a *Container on the list.
	Add(object any)
}
