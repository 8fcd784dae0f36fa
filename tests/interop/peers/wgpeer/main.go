// Wgpeer is a node of another maker, without a control server: who its peer is comes from standard input.
//
// It prints one line of JSON that introduces it, reads one that introduces its peer, then answers a command a line
// (disco, tsmp, icmp: ping the peer that way) with a line of JSON each, until its input ends.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"sync"
	"time"

	"tailscale.com/ipn/ipnstate"
	"tailscale.com/net/dns"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/tsd"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
	"tailscale.com/wgengine"
	"tailscale.com/wgengine/filter"
	"tailscale.com/wgengine/magicsock"
	"tailscale.com/wgengine/router"
	"tailscale.com/wgengine/wgcfg"
)

const patience = 20 * time.Second

// setup is the first line of input.
type setup struct {
	Map     *tailcfg.DERPMap
	Address netip.Addr
}

// node is what one side tells the other of itself.
type node struct {
	Key       key.NodePublic
	Disco     key.DiscoPublic
	Address   netip.Addr
	Home      int
	Endpoints []netip.AddrPort
}

// peer is our own side.
type peer struct {
	engine  wgengine.Engine
	socket  *magicsock.Conn
	private key.NodePrivate
	address netip.Addr

	mu        sync.Mutex
	home      int
	endpoints []netip.AddrPort
	known     chan struct{} // closed once both are known
	told      bool
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	input, output := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	var given setup
	if err := input.Decode(&given); err != nil {
		return fmt.Errorf("set-up: %w", err)
	}
	own, err := start(given)
	if err != nil {
		return err
	}
	defer own.engine.Close()
	introduction, err := own.introduction()
	if err != nil {
		return err
	}
	if err := output.Encode(introduction); err != nil {
		return err
	}
	var other node
	if err := input.Decode(&other); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	own.meet(other)
	for {
		var command string
		if err := input.Decode(&command); err != nil {
			return nil // the end of the input
		}
		if err := output.Encode(own.ping(other.Address, command)); err != nil {
			return err
		}
	}
}

func start(given setup) (*peer, error) {
	own := &peer{private: key.NewNode(), address: given.Address, known: make(chan struct{})}
	logf := logger.Discard
	if os.Getenv("VERBOSE") != "" {
		logf = log.Printf
	}
	system := tsd.NewSystem()
	monitor, err := netmon.New(system.Bus.Get(), logf)
	if err != nil {
		return nil, err
	}
	engine, err := wgengine.NewUserspaceEngine(logf, wgengine.Config{
		EventBus:      system.Bus.Get(),
		NetMon:        monitor,
		HealthTracker: system.HealthTracker.Get(),
		Metrics:       system.UserMetricsRegistry(),
		Router:        router.NewFake(logf),
		SetSubsystem:  system.Set,
		RespondToPing: true,
	})
	if err != nil {
		return nil, err
	}
	own.engine, own.socket = engine, system.MagicSock.Get()
	system.Tun.Get().Start()
	engine.SetFilter(filter.NewAllowAllForTest(logf))
	engine.SetStatusCallback(func(status *wgengine.Status, err error) {
		if err == nil && len(status.LocalAddrs) > 0 {
			own.learn(0, status.LocalAddrs)
		}
	})
	own.socket.SetNetInfoCallback(func(info *tailcfg.NetInfo) { own.learn(info.PreferredDERP, nil) })
	config := &wgcfg.Config{PrivateKey: own.private, Addresses: []netip.Prefix{host(own.address)}}
	if err := engine.Reconfig(config, &router.Config{}, &dns.Config{}); err != nil {
		return nil, err
	}
	own.socket.SetDERPMap(given.Map)
	own.socket.SetNetworkUp(true)
	own.socket.ReSTUN("start")
	return own, nil
}

func host(address netip.Addr) netip.Prefix { return netip.PrefixFrom(address, address.BitLen()) }

func (p *peer) learn(home int, endpoints []tailcfg.Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if home != 0 {
		p.home = home
	}
	for _, endpoint := range endpoints {
		p.endpoints = append(p.endpoints, endpoint.Addr)
	}
	if p.home != 0 && len(p.endpoints) > 0 && !p.told {
		p.told = true
		close(p.known)
	}
}

func (p *peer) introduction() (node, error) {
	select {
	case <-p.known:
	case <-time.After(patience):
		return node{}, errors.New("found no relay or no endpoint")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return node{p.private.Public(), p.socket.DiscoPublicKey(), p.address, p.home, p.endpoints}, nil
}

func (p *peer) meet(other node) {
	self := (&tailcfg.Node{ID: 1, Key: p.private.Public(), Addresses: []netip.Prefix{host(p.address)}}).View()
	route := host(other.Address)
	view := (&tailcfg.Node{
		ID: 2, StableID: "2", Name: "other", Key: other.Key, DiscoKey: other.Disco, HomeDERP: other.Home,
		Addresses: []netip.Prefix{route}, AllowedIPs: []netip.Prefix{route}, Endpoints: other.Endpoints,
		Cap: tailcfg.CurrentCapabilityVersion,
	}).View()
	p.engine.SetPeerForIPFunc(func(ip netip.Addr) (wgengine.PeerForIP, bool) {
		return wgengine.PeerForIP{Node: view, Route: route}, route.Contains(ip)
	})
	p.engine.SetPeerByIPPacketFunc(func(ip netip.Addr) (key.NodePublic, bool) { return other.Key, route.Contains(ip) })
	p.engine.SetPeerConfigFunc(func(wanted key.NodePublic) ([]netip.Prefix, bool) {
		return []netip.Prefix{route}, wanted == other.Key
	})
	p.engine.SetSelfNode(self)
	p.socket.SetNetworkMap(self, []tailcfg.NodeView{view})
}

// ping asks until there is an answer: the first one may be lost while the way is still looked for.
func (p *peer) ping(address netip.Addr, how string) map[string]any {
	kinds := map[string]tailcfg.PingType{
		"disco": tailcfg.PingDisco, "tsmp": tailcfg.PingTSMP, "icmp": tailcfg.PingICMP,
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		answer := make(chan *ipnstate.PingResult, 1)
		p.engine.Ping(address, kinds[how], 0, func(result *ipnstate.PingResult) { answer <- result })
		select {
		case result := <-answer:
			if result.Err == "" {
				return map[string]any{"endpoint": result.Endpoint, "relay": result.DERPRegionID}
			}
		case <-time.After(time.Second):
		}
	}
	return map[string]any{"error": "no answer"}
}
