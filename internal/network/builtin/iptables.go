package builtin

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// natScript is a change of the table nat of one family, as iptables-restore(8) reads it. It is made as a whole or not at all,
// also where iptables is the one of nftables. Chains of others, and other rules in the chains of all, stay.
type natScript struct {
	family string // "" or "6": the second half of the programs' names
	lines  []string
}

// chain makes a chain, or removes all its rules.
func (s *natScript) chain(name string) { s.lines = append(s.lines, ":"+name+" - [0:0]") }

// add adds a line. Its words have no spaces, or are quoted.
func (s *natScript) add(words ...string) { s.lines = append(s.lines, strings.Join(words, " ")) }

// run makes the change. Other programs that change the table are waited for.
func (s *natScript) run(ctx context.Context, c *Call) error {
	text := "*nat\n" + strings.Join(s.lines, "\n") + "\nCOMMIT\n"
	_, err := runTool(ctx, c, "ip"+s.family+"tables-restore", []byte(text), "--noflush", "-w")
	return err
}

// natRules lists the rules of one chain of the table nat, as commands that would add them.
func natRules(ctx context.Context, c *Call, family, chain string) ([]string, error) {
	out, err := runTool(ctx, c, "ip"+family+"tables", nil, "-w", "-t", "nat", "-S", chain)
	return strings.Split(string(out), "\n"), err
}

// runTool starts a program that is found in $PATH. If it is not there, the error is an exec.Error.
func runTool(ctx context.Context, c *Call, name string, stdin []byte, args ...string) ([]byte, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, err
	}
	out, err := c.Start(ctx, path, args, stdin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}
