// Command vmlinux takes the kernel out of Debian's bzImage: QEMU boots the ELF file at once (by its PVH
// entry), while the bzImage would first unpack itself in emulation.
//
//	vmlinux BZIMAGE VMLINUX
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vmlinux:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: vmlinux BZIMAGE VMLINUX")
	}
	image, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	payload, err := payloadOf(image)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	zstd := exec.Command("zstd", "-dqc")
	zstd.Stdin, zstd.Stderr = bytes.NewReader(payload), os.Stderr
	kernel, err := zstd.Output()
	if err != nil {
		return fmt.Errorf("zstd: %w", err)
	}
	if !bytes.HasPrefix(kernel, []byte("\x7fELF")) {
		return fmt.Errorf("%s: its payload is not an ELF file", args[0])
	}
	return os.WriteFile(args[1], kernel, 0o644)
}

// payloadOf gives the compressed kernel, by the setup header (Documentation/arch/x86/boot.rst): setup_sects
// at 0x1f1, and payload_offset and payload_length at 0x248, counted from the end of the set-up sectors. The
// last four bytes are the unpacked size.
func payloadOf(image []byte) ([]byte, error) {
	const sector, header = 512, 0x250
	if len(image) < header || string(image[0x202:0x206]) != "HdrS" {
		return nil, errors.New("not a bzImage")
	}
	setup := int(image[0x1f1])
	if setup == 0 {
		setup = 4
	}
	from := (setup+1)*sector + int(binary.LittleEndian.Uint32(image[0x248:]))
	to := from + int(binary.LittleEndian.Uint32(image[0x24c:])) - 4
	if from >= to || to > len(image) {
		return nil, errors.New("the payload lies outside of the file")
	}
	return image[from:to], nil
}
