#include "textflag.h"

// func clone3List(args *cloneArgs, size uintptr, first *entry, count uintptr) (result int)
//
// The words of an entry: 0 number, 8 to 48 arguments, 56 flags, 64 result, 72 into, 80 after, 88 want, 96 first; 104 bytes.
//
// The kernel preserves all registers but R0, in the child too. The child uses no stack. Results from -4095 are errors.
TEXT ·clone3List(SB),NOSPLIT,$0-40
	BL	runtime·entersyscall(SB)
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	first+16(FP), R19
	MOVD	count+24(FP), R20
	MOVD	$435, R8	// clone3
	SVC
	CBZ	R0, next
	MOVD	R0, result+32(FP)
	BL	runtime·exitsyscall(SB)
	RET

next:
	CBZ	R20, exit
	MOVD	56(R19), R21	// flags
	MOVD	80(R19), R9	// after
	CBZ	R9, call
	MOVD	(R9), R9
	TBNZ	$4, R21, if	// flagIf
	CMN	$4095, R9
	BCC	skip	// it was no error
	B	call

if:
	CMN	$4095, R9
	BCS	skip	// it was an error

call:
	MOVD	8(R19), R0
	MOVD	96(R19), R9	// first
	CBZ	R9, kind
	MOVD	(R9), R0

kind:
	TBNZ	$2, R21, byte	// flagByte
	TBNZ	$3, R21, word	// flagWord
	MOVD	0(R19), R8
	MOVD	16(R19), R1
	MOVD	24(R19), R2
	MOVD	32(R19), R3
	MOVD	40(R19), R4
	MOVD	48(R19), R5
	SVC
	MOVD	R0, 64(R19)
	MOVD	72(R19), R9	// into
	CBZ	R9, judge
	MOVD	R0, (R9)

judge:
	TBNZ	$1, R21, exact	// flagExact
	TBNZ	$0, R21, skip	// flagSoft
	CMN	$4095, R0
	BCS	exit
	B	skip

exact:
	MOVD	88(R19), R9
	CMP	R9, R0
	BNE	exit

skip:
	ADD	$104, R19
	SUB	$1, R20
	B	next

byte:
	MOVBU	(R0), R0
	B	compare

word:
	MOVD	(R0), R0

compare:
	MOVD	R0, 64(R19)
	MOVD	16(R19), R9
	CMP	R9, R0
	BEQ	skip

exit:
	MOVD	$94, R8	// exit_group
	MOVD	$127, R0
	SVC
	B	exit
