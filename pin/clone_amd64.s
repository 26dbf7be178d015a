#include "textflag.h"

// func clone3Held(args *cloneArgs, size, parent uintptr) (result int)
//
// entersyscall and exitsyscall are called as golang.org/x/sys/unix does in its
// own assembly. The kernel preserves all registers but AX, CX and R11, in the
// child too.
TEXT ·clone3Held(SB),NOSPLIT,$0-32
	CALL	runtime·entersyscall(SB)
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	parent+16(FP), R12
	MOVL	$435, AX	// clone3
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	MOVQ	AX, result+24(FP)
	CALL	runtime·exitsyscall(SB)
	RET

child:
	MOVL	$157, AX	// prctl
	MOVL	$1, DI	// PR_SET_PDEATHSIG
	MOVL	$9, SI	// SIGKILL
	SYSCALL
	TESTQ	AX, AX
	JNE	exit
	MOVL	$110, AX	// getppid
	SYSCALL
	CMPQ	AX, R12
	JNE	exit

hold:
	MOVL	$34, AX	// pause
	SYSCALL
	JMP	hold

exit:
	MOVL	$231, AX	// exit_group
	MOVL	$1, DI
	SYSCALL
	JMP	exit
