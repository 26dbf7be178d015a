package lifecycle

import (
	"errors"
	"testing"
)

func TestOnlyDebtsTellsDebtsFromFailures(t *testing.T) {
	debt, failure := error(&debtError{errors.New("DEL")}), errors.New("busy")
	if !onlyDebts(errors.Join(debt, debt)) || onlyDebts(errors.Join(debt, failure)) || onlyDebts(failure) || !onlyDebts(debt) {
		t.Error("misjudged")
	}
}
