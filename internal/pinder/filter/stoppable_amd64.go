package filter

import "golang.org/x/sys/unix"

// lastingToo are those that only this architecture has.
var lastingToo = []int{unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_PAUSE}
