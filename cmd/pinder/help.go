package main

// help is what `pinder --help` prints. The manual pinder(8) is made of it (manpage_test.go).
const help = `pinder: runs the containers of a node for pinfoldd

pinder calls the OCI runtime, writes the containers' logs and exit codes, and holds their pipes and
terminals. There is one pinder for each state directory, for all pods together. It is a pair of
processes. If one ends, the other starts it again. pinder keeps running when pinfoldd ends.

pinfoldd starts pinder when it needs it, replaces its program in place after an upgrade or a downgrade,
and ends it when the daemon ends and there are no pods. You need not call pinder yourself.

Usage:
  pinder --state DIR [--detach]
  pinder init
  pinder --version
  pinder --help

Commands:
  init       run as process 1 of a pod with a shared PID namespace: wait for processes that end
  version    the same as --version
  supervise  for pinder itself: the inner process of the pair
  limited    for pinder itself: starts the OCI runtime with a container's resource limits

Options:
  --state DIR    the state directory of pinfoldd, an absolute path; pinder's socket, lock and log are in it
  --detach       run in the background, in a session of its own; standard error goes to DIR/pinder.log
  --inherit FD   for pinder itself: take over from a reaper that ended
  -h, --help     print this help
  -v, --version  print the version, and that of the protocol between pinfoldd and pinder

Exit status:
  0   pinder was asked to end, or to print something
  1   it failed; standard error says why
  3   another pinder has the state directory
  64  an argument is unknown, or has no value
`
