package network

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
)

// Annotations of a pod that limit its traffic, in bits per second.
const (
	IngressBandwidthAnnotation = "kubernetes.io/ingress-bandwidth"
	EgressBandwidthAnnotation  = "kubernetes.io/egress-bandwidth"
)

// Bounds of a bandwidth, bits per second: the kubelet's.
const (
	minBandwidth = 1e3  // 1k
	maxBandwidth = 1e15 // 1P
)

// bandwidthBurst is in bits. Kubernetes has no setting for it. All runtimes pass this value, so only the rate limits.
const bandwidthBurst = math.MaxInt32

// Bandwidth in bits per second and, for bursts, in bits. A rate of 0 means no
// limit.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// ParseBandwidth reads the bandwidth annotations. It returns nil if there are none. The error for a value that is no
// Kubernetes quantity or not in 1k..1P is ErrInvalidArgument and names the annotation.
func ParseBandwidth(annotations map[string]string) (*Bandwidth, error) {
	var b Bandwidth
	var found bool
	for _, a := range []struct {
		name        string
		rate, burst *uint64
	}{
		{IngressBandwidthAnnotation, &b.IngressRate, &b.IngressBurst},
		{EgressBandwidthAnnotation, &b.EgressRate, &b.EgressBurst},
	} {
		text, ok := annotations[a.name]
		if !ok {
			continue
		}
		rate, err := parseQuantity(text)
		if err != nil {
			return nil, invalid(fmt.Sprintf("annotation %s: %v", a.name, err))
		}
		if rate < minBandwidth || rate > maxBandwidth {
			return nil, invalid(fmt.Sprintf("annotation %s: %q is not between 1k and 1P", a.name, text))
		}
		*a.rate, *a.burst = rate, bandwidthBurst
		found = true
	}
	if !found {
		return nil, nil
	}
	return &b, nil
}

var (
	// quantity is Kubernetes' grammar without the sign. The digits and the
	// exponent are bounded so that a hostile value costs nothing.
	quantity = regexp.MustCompile(`^\+?([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,2}))?$`)

	decimals = map[string]int{"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
	binaries = map[string]uint{"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
)

// parseQuantity reads a Kubernetes quantity, rounded up to a whole number. A number above the greatest is the greatest.
func parseQuantity(s string) (uint64, error) {
	if len(s) > 64 {
		return 0, errors.New("a quantity has at most 64 characters")
	}
	m := quantity.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is not a quantity like 10M, 1Gi or 250000", s)
	}
	value, ok := new(big.Rat).SetString(m[1])
	if !ok {
		return 0, fmt.Errorf("%q is not a number", m[1])
	}
	if shift, ok := binaries[m[2]]; ok {
		value.Mul(value, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), shift)))
	} else {
		exp := decimals[m[2]]
		if m[3] != "" {
			exp, _ = strconv.Atoi(m[3]) // the expression allows nothing else
		}
		value.Mul(value, pow10(exp))
	}
	whole, rest := new(big.Int).QuoRem(value.Num(), value.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		whole.Add(whole, big.NewInt(1))
	}
	if !whole.IsUint64() {
		return math.MaxUint64, nil
	}
	return whole.Uint64(), nil
}

func pow10(exp int) *big.Rat {
	abs := exp
	if abs < 0 {
		abs = -abs
	}
	r := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(abs)), nil))
	if exp < 0 {
		r.Inv(r)
	}
	return r
}
