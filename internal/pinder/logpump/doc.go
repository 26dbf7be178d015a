// Package logpump moves a container's output to its log, and copies it to attached clients.
//
// A Pump takes output from Sources (a pipe for each of standard output and standard error, or a terminal) and writes
// CRI log records to a Sink. Every write goes through the same three steps, and a Cursor in shared memory says which
// of them is under way:
//
//	Source ──splice──▶ private pipe ──tee──▶ a copy ──▶ Sink, attachers
//	                        │
//	                        └──read──▶ nothing: the bytes are in the log
//
//	step      before it, the cursor says   if the process is killed in it, the next Pump
//	take      intent: log offset, time      finds the bytes in the Source or in the private pipe
//	write     intent                        finds the bytes in the private pipe, and writes the same again
//	consume   commit: the log's new end     empties the private pipe
//
// So no line is lost or doubled, wherever SIGKILL hits. A reader that follows the log sees no change of what it has
// read: a repeated write puts the same bytes in the same place.
//
// Output whose line has not ended waits a short time for more, in the Source, so that a line written in pieces is one
// record; see holdBack.
//
// The package knows nothing of containers, runtimes or the daemon, and its tests need no root.
package logpump
