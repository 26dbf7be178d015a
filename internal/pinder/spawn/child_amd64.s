#include "textflag.h"

// func clone3List(args *cloneArgs, size uintptr, first *entry, count uintptr) (result int)
//
// The words of an entry: 0 number, 8 to 48 arguments, 56 flags, 64 result, 72 into, 80 after, 88 want, 96 first; 104 bytes.
//
// The kernel preserves all registers but AX, CX and R11, in the child too. The child uses no stack. Results from
// -4095 are errors.
TEXT ·clone3List(SB),NOSPLIT,$0-40
	CALL	runtime·entersyscall(SB)
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	first+16(FP), R12
	MOVQ	count+24(FP), R13
	MOVL	$435, AX	// clone3
	SYSCALL
	TESTQ	AX, AX
	JEQ	next
	MOVQ	AX, result+32(FP)
	CALL	runtime·exitsyscall(SB)
	RET

next:
	TESTQ	R13, R13
	JEQ	exit
	MOVQ	56(R12), R15	// flags
	MOVQ	80(R12), BX	// after
	TESTQ	BX, BX
	JEQ	call
	MOVQ	(BX), BX
	TESTQ	$16, R15	// flagIf
	JNE	if
	CMPQ	BX, $0xfffffffffffff001
	JCS	skip	// it was no error
	JMP	call

if:
	CMPQ	BX, $0xfffffffffffff001
	JCC	skip	// it was an error

call:
	MOVQ	8(R12), DI
	MOVQ	96(R12), BX	// first
	TESTQ	BX, BX
	JEQ	kind
	MOVQ	(BX), DI

kind:
	TESTQ	$4, R15	// flagByte
	JNE	byte
	TESTQ	$8, R15	// flagWord
	JNE	word
	MOVQ	0(R12), AX
	MOVQ	16(R12), SI
	MOVQ	24(R12), DX
	MOVQ	32(R12), R10
	MOVQ	40(R12), R8
	MOVQ	48(R12), R9
	SYSCALL
	MOVQ	AX, 64(R12)
	MOVQ	72(R12), BX	// into
	TESTQ	BX, BX
	JEQ	judge
	MOVQ	AX, (BX)

judge:
	TESTQ	$2, R15	// flagExact
	JNE	exact
	TESTQ	$1, R15	// flagSoft
	JNE	skip
	CMPQ	AX, $0xfffffffffffff001
	JCC	exit
	JMP	skip

exact:
	CMPQ	AX, 88(R12)
	JNE	exit

skip:
	ADDQ	$104, R12
	DECQ	R13
	JMP	next

byte:
	MOVBQZX	(DI), AX
	JMP	compare

word:
	MOVQ	(DI), AX

compare:
	MOVQ	AX, 64(R12)
	CMPQ	AX, 16(R12)
	JEQ	skip

exit:
	MOVL	$231, AX	// exit_group
	MOVL	$127, DI
	SYSCALL
	JMP	exit
