// Relaypeer speaks to a relay and to a STUN server with the code other clients of the protocols are built from.
//
//	relaypeer derp URL upgrade|faststart|websocket
//	relaypeer stun HOST:PORT
//
// It prints what it saw as one line of JSON and exits 1 with the reason when something is not as it must be.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/disco"
	"tailscale.com/envknob"
	"tailscale.com/net/netmon"
	"tailscale.com/net/stun"
	"tailscale.com/types/key"
)

const patience = 20 * time.Second

// sizes of packets: none, one byte, small and full datagrams, more than one piece of a relay's output.
var sizes = []int{0, 1, 148, 1280, 1500, 30_000}

// rounds is how often all sizes are sent: enough to fill more than one buffer on the way.
const rounds = 20

// burst is how many packets are sent before the first is received.
const burst = 200

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	time.AfterFunc(patience, func() { fail(errors.New("waited too long")) })
	seen, err := run(ctx, os.Args[1:])
	if err != nil {
		fail(err)
	}
	json.NewEncoder(os.Stdout).Encode(seen)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func run(ctx context.Context, args []string) (map[string]any, error) {
	switch {
	case len(args) == 3 && args[0] == "derp":
		return exchange(ctx, args[1], args[2])
	case len(args) == 2 && args[0] == "stun":
		return query(ctx, args[1])
	}
	return nil, errors.New("usage: relaypeer derp URL upgrade|faststart|websocket, or relaypeer stun HOST:PORT")
}

// client is one end at the relay: derphttp's, or derp's on a connection made by hand.
type client interface {
	Send(to key.NodePublic, packet []byte) error
	Recv() (derp.ReceivedMessage, error)
	SendPing([8]byte) error
	Close() error
}

// bare is derp's client, which leaves its connection to us.
type bare struct {
	*derp.Client
	conn net.Conn
}

func (b bare) Close() error { return b.conn.Close() }

func exchange(ctx context.Context, relay, transport string) (map[string]any, error) {
	oneKey, otherKey := key.NewNode(), key.NewNode()
	one, server, err := connect(ctx, relay, transport, oneKey)
	if err != nil {
		return nil, fmt.Errorf("first client: %w", err)
	}
	other, _, err := connect(ctx, relay, transport, otherKey)
	if err != nil {
		return nil, fmt.Errorf("second client: %w", err)
	}
	if transport != "websocket" { // its library takes 32 KiB a message
		sizes = append(sizes, derp.MaxPacketSize)
	}
	count, err := both(one, other, oneKey.Public(), otherKey.Public())
	if err != nil {
		return nil, err
	}
	if err := bursts(one, other, oneKey.Public(), otherKey.Public()); err != nil {
		return nil, fmt.Errorf("burst: %w", err)
	}
	if err := ping(one); err != nil {
		return nil, fmt.Errorf("ping: %w", err)
	}
	if err := missing(one); err != nil {
		return nil, fmt.Errorf("packet to nobody: %w", err)
	}
	other.Close()
	if err := gone(one, otherKey.Public(), derp.PeerGoneReasonDisconnected); err != nil {
		return nil, fmt.Errorf("partner that left: %w", err)
	}
	return map[string]any{"server": server.String(), "packets": count}, nil
}

// connect returns a client that the relay knows: packets to one it has not read of yet are lost.
func connect(ctx context.Context, relay, transport string, private key.NodePrivate) (client, key.NodePublic, error) {
	made, server, err := dial(ctx, relay, transport, private)
	if err != nil {
		return nil, server, err
	}
	for {
		message, err := made.Recv()
		if err != nil {
			return nil, server, err
		}
		if _, ok := message.(derp.ServerInfoMessage); ok {
			return made, server, nil
		}
	}
}

func dial(ctx context.Context, relay, transport string, private key.NodePrivate) (client, key.NodePublic, error) {
	quiet := func(string, ...any) {}
	if transport == "websocket" {
		envknob.Setenv("TS_DEBUG_DERP_WS_CLIENT", "true")
	}
	whole, err := derphttp.NewClient(private, relay, quiet, netmon.NewStatic())
	if err != nil {
		return nil, key.NodePublic{}, err
	}
	if err := whole.Connect(ctx); err != nil {
		return nil, key.NodePublic{}, err
	}
	server := whole.ServerPublicKey()
	if transport != "faststart" {
		return whole, server, nil
	}
	whole.Close()
	quick, err := fastStart(ctx, relay, private, server)
	return quick, server, err
}

// fastStart speaks first, without an answer to its request: it knows the server's key already.
func fastStart(ctx context.Context, relay string, private key.NodePrivate, server key.NodePublic) (client, error) {
	at, err := url.Parse(relay)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.Host)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, relay, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Upgrade", "DERP")
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set(derp.FastStartHeader, "1")
	buffered := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	if err := request.Write(buffered); err != nil {
		return nil, err
	}
	if err := buffered.Flush(); err != nil {
		return nil, err
	}
	speaker, err := derp.NewClient(private, conn, buffered, func(string, ...any) {}, derp.ServerPublicKey(server))
	return bare{speaker, conn}, err
}

// both sends packets of all sizes one way and back; each must arrive as it was, in order, from who sent it.
func both(one, other client, oneKey, otherKey key.NodePublic) (int, error) {
	count := 0
	for range rounds {
		for _, size := range sizes {
			packet := make([]byte, size)
			rand.Read(packet)
			if err := one.Send(otherKey, packet); err != nil {
				return count, fmt.Errorf("send %d bytes: %w", size, err)
			}
			if err := expect(other, oneKey, packet); err != nil {
				return count, fmt.Errorf("receive %d bytes: %w", size, err)
			}
			if err := other.Send(oneKey, packet); err != nil {
				return count, fmt.Errorf("send back %d bytes: %w", size, err)
			}
			if err := expect(one, otherKey, packet); err != nil {
				return count, fmt.Errorf("receive back %d bytes: %w", size, err)
			}
			count += 2
		}
	}
	return count, nil
}

// bursts sends many packets at once, so that the relay joins them; they arrive one by one.
func bursts(one, other client, oneKey, otherKey key.NodePublic) error {
	packets := make([][]byte, burst)
	for i := range packets {
		packets[i] = make([]byte, 1280)
		rand.Read(packets[i])
		if err := one.Send(otherKey, packets[i]); err != nil {
			return err
		}
	}
	for _, packet := range packets {
		if err := expect(other, oneKey, packet); err != nil {
			return err
		}
	}
	return nil
}

func expect(at client, from key.NodePublic, packet []byte) error {
	for {
		message, err := at.Recv()
		if err != nil {
			return err
		}
		got, ok := message.(derp.ReceivedPacket)
		if !ok {
			continue // server information, keep-alives
		}
		if got.Source != from || !bytes.Equal(got.Data, packet) {
			return fmt.Errorf("got %d bytes from %v", len(got.Data), got.Source)
		}
		return nil
	}
}

func ping(at client) error {
	data := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	if err := at.SendPing(data); err != nil {
		return err
	}
	for {
		message, err := at.Recv()
		if err != nil {
			return err
		}
		if pong, ok := message.(derp.PongMessage); ok {
			if pong != derp.PongMessage(data) {
				return fmt.Errorf("pong of %v", pong)
			}
			return nil
		}
	}
}

// missing sends something that looks like disco, for others are dropped silently, to a key nobody has.
func missing(at client) error {
	nobody := key.NewNode().Public()
	if err := at.Send(nobody, append([]byte(disco.Magic), make([]byte, 80)...)); err != nil {
		return err
	}
	return gone(at, nobody, derp.PeerGoneReasonNotHere)
}

func gone(at client, who key.NodePublic, why derp.PeerGoneReasonType) error {
	for {
		message, err := at.Recv()
		if err != nil {
			return err
		}
		if told, ok := message.(derp.PeerGoneMessage); ok {
			if told.Peer != who || told.Reason != why {
				return fmt.Errorf("told that %v is gone for reason %v", told.Peer, told.Reason)
			}
			return nil
		}
	}
}

func query(ctx context.Context, server string) (map[string]any, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", server)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	id := stun.NewTxID()
	if _, err := conn.Write(stun.Request(id)); err != nil {
		return nil, err
	}
	var answer [1500]byte
	size, err := conn.Read(answer[:])
	if err != nil {
		return nil, err
	}
	got, seen, err := stun.ParseResponse(answer[:size])
	if err != nil {
		return nil, err
	}
	own := netip.MustParseAddrPort(conn.LocalAddr().String())
	if got != id || seen != own {
		return nil, fmt.Errorf("seen as %v, am %v", seen, own)
	}
	return map[string]any{"seen": seen.String()}, nil
}
