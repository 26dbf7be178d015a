package builtin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// nft is a socket of nftables, in the namespace of the thread that opened it. One goroutine uses it.
type nft struct {
	socket  *nl.NetlinkSocket
	sockets map[int]*nl.SocketHandle
}

func openNFT() (*nft, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a socket of nftables: %w", err)
	}
	longest := &unix.Timeval{Sec: 30}
	if err := errors.Join(s.SetReceiveTimeout(longest), s.SetSendTimeout(longest)); err != nil {
		s.Close()
		return nil, err
	}
	return &nft{socket: s, sockets: map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: s}}}, nil
}

// close closes the socket, elsewhere: while the kernel still frees what somebody removed from nftables, which takes it ten
// milliseconds and more, the end of any of these sockets waits for it (nft_rcv_nl_event).
func (n *nft) close() { go n.socket.Close() }

// request makes a message of nftables with attributes that are texts.
func (n *nft) request(kind, flags int, family uint8, texts map[uint16]string) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags)
	req.Sockets = n.sockets
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	for name, text := range texts {
		req.AddData(nl.NewRtAttr(int(name), nl.ZeroTerminated(text)))
	}
	return req
}

// has reports whether the kernel has what is asked for. A kernel without nftables, or without the family, has nothing.
func (n *nft) has(req *nl.NetlinkRequest) (bool, error) {
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.EAFNOSUPPORT):
		return false, nil
	default:
		return false, fmt.Errorf("ask nftables: %w", err)
	}
}

func (n *nft) hasTable(family uint8, table string) (bool, error) {
	return n.has(n.request(unix.NFT_MSG_GETTABLE, unix.NLM_F_ACK, family, map[uint16]string{unix.NFTA_TABLE_NAME: table}))
}

func (n *nft) hasChain(family uint8, table, chain string) (bool, error) {
	return n.has(n.request(unix.NFT_MSG_GETCHAIN, unix.NLM_F_ACK, family, map[uint16]string{
		unix.NFTA_CHAIN_TABLE: table, unix.NFTA_CHAIN_NAME: chain,
	}))
}

// natChain is a chain in a family's table nat, where iptables of nftables keeps it.
type natChain struct {
	family uint8
	name   string
}

const natTable, postrouting = "nat", "POSTROUTING"

// jumps are the handles of the rules of POSTROUTING that lead to a chain. Such a chain's name is a hash: a rule that has it
// anywhere leads to it. The rules are read one after the other, because a node may have many.
func (n *nft) jumps(c natChain) ([]uint64, error) {
	return again(func() ([]uint64, error) {
		req := n.request(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, c.family, map[uint16]string{
			unix.NFTA_RULE_TABLE: natTable, unix.NFTA_RULE_CHAIN: postrouting,
		})
		var handles []uint64
		name := nl.ZeroTerminated(c.name)
		err := req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(m []byte) bool {
			if len(m) < nl.SizeofNfgenmsg || !bytes.Contains(m, name) {
				return true
			}
			attributes, err := nl.ParseRouteAttr(m[nl.SizeofNfgenmsg:])
			if err != nil {
				return true
			}
			for _, a := range attributes {
				if a.Attr.Type&nl.NLA_TYPE_MASK == unix.NFTA_RULE_HANDLE && len(a.Value) == 8 {
					handles = append(handles, binary.BigEndian.Uint64(a.Value))
				}
			}
			return true
		})
		return handles, err
	})
}

// removeChains removes chains, with the rules in them and those that lead to them, all or none.
func (n *nft) removeChains(chains []natChain) error {
	const tries = 5 // others may remove the same
	var err error
	for range tries {
		var steps []*nl.NetlinkRequest
		for _, c := range chains {
			handles, err := n.jumps(c)
			if err != nil {
				return err
			}
			for _, handle := range handles {
				req := n.request(unix.NFT_MSG_DELRULE, unix.NLM_F_ACK, c.family, map[uint16]string{
					unix.NFTA_RULE_TABLE: natTable, unix.NFTA_RULE_CHAIN: postrouting,
				})
				req.AddData(nl.NewRtAttr(unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, handle)))
				steps = append(steps, req)
			}
			steps = append(
				steps,
				n.request(unix.NFT_MSG_DELRULE, unix.NLM_F_ACK, c.family, map[uint16]string{
					unix.NFTA_RULE_TABLE: natTable, unix.NFTA_RULE_CHAIN: c.name,
				}),
				n.request(unix.NFT_MSG_DELCHAIN, unix.NLM_F_ACK, c.family, map[uint16]string{
					unix.NFTA_CHAIN_TABLE: natTable, unix.NFTA_CHAIN_NAME: c.name,
				}),
			)
		}
		if err = n.commit(steps); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return err
}

// commit makes changes as one.
func (n *nft) commit(steps []*nl.NetlinkRequest) error {
	marker := func(kind int) *nl.NetlinkRequest {
		req := nl.NewNetlinkRequest(kind, 0)
		req.AddData(&nl.Nfgenmsg{Version: nl.NFNETLINK_V0, ResId: nl.Swap16(unix.NFNL_SUBSYS_NFTABLES)})
		return req
	}
	all := append(append([]*nl.NetlinkRequest{marker(unix.NFNL_MSG_BATCH_BEGIN)}, steps...), marker(unix.NFNL_MSG_BATCH_END))
	var message []byte
	waits := map[uint32]bool{}
	for i, req := range all {
		message = append(message, req.Serialize()...)
		if i > 0 && i < len(all)-1 {
			waits[req.Seq] = true
		}
	}
	if err := unix.Sendto(n.socket.GetFd(), message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("change nftables: %w", err)
	}
	var failed error
	for len(waits) > 0 {
		answers, from, err := n.socket.Receive()
		if err != nil {
			return fmt.Errorf("change nftables: %w", err)
		}
		if from.Pid != nl.PidKernel {
			continue
		}
		for _, a := range answers {
			if a.Header.Type != unix.NLMSG_ERROR || len(a.Data) < 4 {
				continue
			}
			delete(waits, a.Header.Seq)
			if code := int32(nl.NativeEndian().Uint32(a.Data)); code != 0 {
				failed = fmt.Errorf("change nftables: %w", syscall.Errno(-code))
			}
		}
		if failed != nil {
			return failed // what else has failed, and whether, is not told
		}
	}
	return nil
}
