package builtin

// MapsNoPort reports whether portmap would do nothing with this configuration but pass on the result of the plugins before.
func MapsNoPort(config []byte) bool {
	// The keys of its first release. Others of them need more checks, and with those the program says what is wrong.
	keys := object(common.with(keys{
		"snat": plain, "masqAll": plain, "markMasqBit": plain, "ipam": object(keys{"type": plain}),
		"runtimeConfig": object(keys{"portMappings": list(anything)}),
	}))
	var conf struct {
		SNAT          *bool `json:"snat"`
		MasqAll       bool  `json:"masqAll"`
		MarkMasqBit   *int  `json:"markMasqBit"`
		RuntimeConfig struct {
			PortMappings []any `json:"portMappings"`
		} `json:"runtimeConfig"`
	}
	if known(config, keys) != nil || decode(config, &conf) != nil {
		return false
	}
	const bits = 32
	inRange := conf.MarkMasqBit == nil || *conf.MarkMasqBit >= 0 && *conf.MarkMasqBit < bits
	return inRange && len(conf.RuntimeConfig.PortMappings) == 0
}

// LimitsNothing reports whether bandwidth would do nothing with this configuration but pass on the result of the plugins
// before.
func LimitsNothing(config []byte) bool {
	limits := keys{"ingressRate": plain, "ingressBurst": plain, "egressRate": plain, "egressBurst": plain}
	keys := object(common.with(limits).with(keys{
		"ipam": object(keys{"type": plain}), "runtimeConfig": object(keys{"bandwidth": object(limits)}),
	}))
	type rates struct {
		IngressRate  uint64 `json:"ingressRate"`
		IngressBurst uint64 `json:"ingressBurst"`
		EgressRate   uint64 `json:"egressRate"`
		EgressBurst  uint64 `json:"egressBurst"`
	}
	var conf struct {
		rates
		RuntimeConfig struct {
			Bandwidth rates `json:"bandwidth"`
		} `json:"runtimeConfig"`
	}
	return known(config, keys) == nil && decode(config, &conf) == nil && conf.rates == rates{} && conf.RuntimeConfig.Bandwidth == rates{}
}
