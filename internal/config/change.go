package config

// Change is another value of a key.
type Change struct {
	// Key is its name, Old and New the values as TOML, From the source of the new one.
	Key, Old, New, From string
}

// Take takes from another configuration the values that can change while the daemon runs, and says
// which have changed. pending are the changes that need a restart; they are not taken.
func (c *Config) Take(next *Effective) (taken, pending []Change) {
	for i := range Keys {
		k := &Keys[i]
		old, other := k.value(c), k.value(next.Config)
		if old.toml() == other.toml() {
			continue
		}
		change := Change{k.Name, old.toml(), other.toml(), next.Source(k.Name)}
		if !k.Reload {
			pending = append(pending, change)
			continue
		}
		taken = append(taken, change)
		old.assign(other)
	}
	return taken, pending
}

// Copy returns a configuration that Take can change.
func (c *Config) Copy() *Config {
	copied := *c
	return &copied
}
