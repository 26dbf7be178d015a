// Package arch holds the project's rules as tests: who may import what, who may
// mount or start processes, what must be documented, how large a thing may be.
// ARCHITECTURE.md cites them by name. It has no code of its own.
//
// Every rule is first shown a bad example and must object to it: a rule that
// cannot fail would be worth nothing.
package arch
