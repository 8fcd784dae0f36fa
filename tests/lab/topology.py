"""Networks out of namespaces: an internet, routers with or without NAT on it, hosts behind them.

    with Internet() as net:
        server = net.host("server")                                  # a public address, no router
        home = net.router("home", HARD)                              # a NAT with a LAN behind it
        alice = home.host("alice")                                   # 192.168.1.10, whatever else has that address
        flat = home.router("flat", EASY).host("bob")                 # a NAT behind a NAT
        mobile = net.router("cgn", EASY, lan="100.64.0").router("phone", EASY).host("carol")
        modern = net.router("v6", ROUTED, v4=False, v6=True).host("dave")
        slow = net.host("slow", link=["delay 15ms", "rate 100m"])    # through the link program
        slow.uplink.tell("loss 0.01")
        alice.run("ip", "addr")                                      # or popen; alice.ip("..."), home.nft("...")

`Internet` and `Router` make hosts and routers in the same way, and those are `Namespace`s. Everybody's way out is the
interface `wan`, a router's inside is the bridge `lan` with the address `.1` (so a port mapping daemon listens on `lan`
and maps on `wan`). LANs are 192.168.1.0/24 unless said otherwise, and so collide with each other as they do in life.
`names` of the internet are in every host's /etc/hosts. All of it vanishes with the `with`.

NATs are Linux's own. `masquerade` keeps the source port while it is free, so one socket has one mapping for all
destinations; conntrack lets in only answers, so filtering is by address and port. What comes in unasked is dropped
before conntrack remembers it, which would otherwise cost the socket its port.
"""

import ipaddress
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

from lab.impaired import Link
from lab.netns import Namespace, clean

ROUTER_SYSCTLS = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1, "net.ipv4.conf.all.rp_filter": 0}
BRIDGE_RULES = Path("/proc/sys/net/bridge")
"""There when bridges pass packets through IP's rules, which would translate them without routing them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nat:
    """How a router translates IPv4 and what it lets in. IPv6 is never translated, only filtered by state."""

    translate: bool = True
    mapping: Literal["easy", "hard"] = "easy"
    """`easy`: one outside port for each inside socket; `hard`: a random one for each destination."""
    filtering: Literal["port", "address"] = "port"
    """What an inside socket must have sent to before something from there is let in."""
    hairpin: bool = False
    """Inside hosts reach each other's outside ports (easy mapping only)."""
    udp: bool = True


ROUTED = Nat(translate=False)
EASY = Nat()
ADDRESS = Nat(filtering="address")
HARD = Nat(mapping="hard")
HAIRPIN = Nat(filtering="address", hairpin=True)
BLOCKED = Nat(udp=False)


class Host(Namespace):
    """A namespace with one way out, `wan`."""

    def __init__(self, label: str, **sysctls: int) -> None:
        super().__init__(label, **sysctls)
        self.uplink: Link
        """The link program on the way out; unset where that is a plain wire."""
        self.v4: str = ""
        """Its own address on `wan`."""
        self.v6: str = ""
        self.port: Port

    def readdress(self) -> None:
        """Have other addresses on the same wire from now on, as after a new lease."""
        old, mtu = self.port, int(self.run("cat", "/sys/class/net/wan/mtu"))
        self.ip("addr flush dev wan scope global")
        self.port = Port(shifted(old.v4), old.gateway4, shifted(old.v6), old.gateway6)
        plug(self, self.port, mtu)

    def unplug(self) -> None:
        """Lose the way out altogether; `connect` of an internet or a router gives another one."""
        self.ip("link del wan")
        self.v4 = self.v6 = ""


Interface = TypeVar("Interface", ipaddress.IPv4Interface, ipaddress.IPv6Interface)


@dataclass(frozen=True, slots=True)
class Port:
    """What the upper end of a wire gives the lower one."""

    v4: ipaddress.IPv4Interface | None
    gateway4: str
    v6: ipaddress.IPv6Interface | None
    gateway6: str


def shifted(interface: Interface | None) -> Interface | None:
    """Another address of the same network."""
    return interface and type(interface)((int(interface.ip) + 100, interface.network.prefixlen))


class Internet:
    """The public part: a namespace that routes between customers, each on a network of its own."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        clean()
        self.stack = ExitStack()
        self.names = list(names)
        """Host names that all lead to the first host made."""
        self.hosts_file = ""
        self.customers = 0
        try:
            self.core = self.stack.enter_context(Namespace("internet", **ROUTER_SYSCTLS))
            self.core.ip("route add blackhole default", "route add blackhole ::/0")
        except BaseException:
            self.stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def host(
        self, label: str, *, v4: bool = True, v6: bool = False, mtu: int = 1500, link: Sequence[str] | None = None
    ) -> Host:
        """Make a host with public addresses and nothing between it and the world."""
        host = self.stack.enter_context(Host(label))
        self.connect(host, v4=v4, v6=v6, mtu=mtu, link=link)
        self.introduce(host)
        return host

    def router(
        self,
        label: str,
        nat: Nat = EASY,
        *,
        lan: str = "192.168.1",
        v4: bool = True,
        v6: bool = False,
        mtu: int = 1500,
        link: Sequence[str] | None = None,
    ) -> "Router":
        """Make a router of a customer. `mtu` is that of its way out."""
        router = self.stack.enter_context(Router(self, label, nat, lan, v4=v4, v6=v6))
        number = self.connect(router, v4=v4, v6=v6, mtu=mtu, link=link)
        if v6:
            router.prefix = f"2a00:{number:x}:1::"
            self.core.ip(f"route add {router.prefix}/64 via {router.v6}")
        router.start()
        return router

    def connect(
        self, host: Host, *, v4: bool = True, v6: bool = False, mtu: int = 1500, link: Sequence[str] | None = None
    ) -> int:
        """Give a customer's `wan` a wire and public addresses; return the customer's number."""
        self.customers += 1
        number = self.customers
        inner = f"to{number}"
        if link is None:
            host.ip(f"link add wan type veth peer name {inner} netns {self.core.name}")
        else:
            host.uplink = self.stack.enter_context(Link(host, "wan", self.core, inner, link))
        port = Port(
            ipaddress.IPv4Interface(f"11.0.{number}.2/24") if v4 else None,
            f"11.0.{number}.1",
            ipaddress.IPv6Interface(f"2a00:{number:x}::2/64") if v6 else None,
            f"2a00:{number:x}::1",
        )
        self.core.ip(
            f"link set {inner} mtu {mtu} up",
            *([f"addr add {port.gateway4}/24 dev {inner}"] if v4 else []),
            *([f"addr add {port.gateway6}/64 dev {inner}"] if v6 else []),
        )
        plug(host, port, mtu)
        return number

    def introduce(self, host: Namespace) -> None:
        """Let a host know the names."""
        if not self.hosts_file and isinstance(host, Host):
            addresses = [address for address in (host.v4, host.v6) if address]
            self.hosts_file = "".join(f"{address} {name}\n" for address in addresses for name in self.names)
        host.file("hosts", f"127.0.0.1 localhost\n::1 localhost\n{self.hosts_file}")


def plug(host: Host, port: Port, mtu: int, device: str = "wan") -> None:
    """Bring up a host's way out with what its upper end offers."""
    host.port = port
    lines = [f"link set {device} mtu {mtu} up"]
    if port.v4:
        host.v4 = str(port.v4.ip)
        lines += [f"addr add {port.v4} dev {device}", f"route replace default via {port.gateway4} dev {device}"]
    if port.v6:
        host.v6 = str(port.v6.ip)
        lines += [f"addr add {port.v6} dev {device}", f"route replace default via {port.gateway6} dev {device}"]
    host.ip(*lines)


class Router(Host):
    """A NAT, a firewall or both, with a LAN behind it."""

    def __init__(self, internet: Internet, label: str, nat: Nat, lan: str, *, v4: bool, v6: bool) -> None:
        super().__init__(label, **ROUTER_SYSCTLS)
        self.internet = internet
        self.nat = nat
        self.lan = lan
        self.has4, self.has6 = v4, v6
        self.prefix = ""
        """Its IPv6 network, if it has one, without the length, which is 64."""
        self.plugged = 0

    def start(self) -> None:
        """Bring up the LAN, then the rules."""
        if BRIDGE_RULES.exists():
            self.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
        self.ip(
            "link add lan type bridge",
            "link set lan up",
            *([f"addr add {self.lan}.1/24 dev lan"] if self.has4 else []),
            *([f"addr add {self.prefix}1/64 dev lan"] if self.has6 else []),
        )
        self.nft(filter_rules(self.nat) + (nat_rules(self.nat, self.v4) if self.nat.translate else ""))

    def host(self, label: str, *, mtu: int = 1500, isolated: bool = False) -> Host:
        """Make a host on the LAN; isolated ones reach only the router."""
        host = self.internet.stack.enter_context(Host(label))
        self.connect(host, mtu=mtu, isolated=isolated)
        self.internet.introduce(host)
        return host

    def router(self, label: str, nat: Nat = EASY, *, lan: str = "192.168.1", mtu: int = 1500) -> "Router":
        """Make a router on the LAN, IPv4 only. If both have the same LAN it moves, since nothing would route."""
        if lan == self.lan:
            lan = "192.168.2" if lan != "192.168.2" else "192.168.3"
        router = self.internet.stack.enter_context(Router(self.internet, label, nat, lan, v4=True, v6=False))
        self.connect(router, mtu=mtu)
        router.start()
        return router

    def connect(self, host: Host, *, mtu: int = 1500, isolated: bool = False, device: str = "wan") -> None:
        """Plug a host's `wan` into the LAN, or another device, which becomes its way out then."""
        self.plugged += 1
        inner, number = f"port{self.plugged}", 9 + self.plugged
        host.ip(f"link add {device} type veth peer name {inner} netns {self.name}")
        self.ip(
            f"link set {inner} master lan up",
            *([f"link set {inner} type bridge_slave isolated on"] if isolated else []),
        )
        port = Port(
            ipaddress.IPv4Interface(f"{self.lan}.{number}/24") if self.has4 else None,
            f"{self.lan}.1",
            ipaddress.IPv6Interface(f"{self.prefix}{number:x}/64") if self.has6 else None,
            f"{self.prefix}1",
        )
        plug(host, port, mtu, device)

    def break_family(self, family: Literal[4, 6]) -> None:
        """Swallow everything of one family, while hosts keep its addresses and routes."""
        self.nft(
            "table inet broken { chain forward { type filter hook forward priority -10; "
            f"meta nfproto ipv{family} drop; }}; }}\n"
        )

    def swallow_udp(self, longer_than: int = 0) -> None:
        """Drop UDP packets longer than so many bytes from now on, without a word."""
        self.nft(
            "table inet swallow { chain forward { type filter hook forward priority -10; "
            f"meta l4proto udp meta length > {longer_than} drop; }}; }}\n"
        )

    def swallow_nothing(self) -> None:
        """End what `swallow_udp` began."""
        self.nft("table inet swallow\ndelete table inet swallow\n")


def filter_rules(nat: Nat) -> str:
    """What a router lets through: from inside all, from outside answers and what was translated on purpose."""
    return f"""
table inet filter {{
    chain input {{
        type filter hook input priority 0
        iifname "wan" ct state established,related accept
        iifname "wan" meta l4proto {{ icmp, icmpv6 }} accept
        iifname "wan" drop
    }}
    chain forward {{
        type filter hook forward priority 0
        {"" if nat.udp else "meta l4proto udp drop"}
        iifname "wan" ct state established,related accept
        iifname "wan" ct status dnat accept
        iifname "wan" meta l4proto icmpv6 accept
        iifname "wan" drop
    }}
}}
"""


def nat_rules(nat: Nat, outside: str) -> str:
    """How a router translates."""
    flags = "fully-random" if nat.mapping == "hard" else ""
    extra = ""
    if nat.filtering == "address" or nat.hairpin:
        extra = remembering_rules()
    hairpin = ""
    if nat.hairpin:
        hairpin = f"""
    chain hairpin_out {{
        type nat hook prerouting priority -101
        iifname "lan" ip daddr {outside} meta l4proto udp dnat to udp dport map @inside
    }}
    chain hairpin_back {{
        type nat hook postrouting priority 99
        iifname "lan" oifname "lan" ct status dnat snat to {outside}
    }}
"""
    return f"""
table ip nat {{
    chain outward {{
        type nat hook postrouting priority 100
        oifname "wan" masquerade {flags}
    }}
{extra}{hairpin}
}}
"""


def remembering_rules() -> str:
    """Remembers which inside socket an outside port belongs to, and to which addresses it has sent."""
    return """
    map inside {
        type inet_service : ipv4_addr . inet_service
        size 65535
        flags dynamic,timeout
        timeout 300s
    }
    set known {
        type inet_service . ipv4_addr
        size 65535
        flags dynamic,timeout
        timeout 300s
    }
    chain learn {
        type filter hook postrouting priority 110
        oifname "wan" meta l4proto udp update @inside { udp sport : ct original ip saddr . ct original proto-src }
        oifname "wan" meta l4proto udp update @known { udp sport . ip daddr }
    }
    chain inward {
        type nat hook prerouting priority -100
        iifname "wan" udp dport . ip saddr @known dnat to udp dport map @inside
    }
"""
