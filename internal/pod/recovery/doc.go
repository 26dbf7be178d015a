// Package recovery brings the book, the records, pinder and the kernel in line: when the daemon starts, when the
// operator asks for a check, and later for what could not be undone at once.
package recovery
