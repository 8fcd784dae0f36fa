"""miniupnpd on a router of the lab, speaking all of PCP, NAT-PMP and UPnP IGD, or only one of them."""

import shutil
from pathlib import Path
from typing import Self

from lab.topology import Router

PROGRAM = "miniupnpd"
MISSING = None if shutil.which(PROGRAM) else f"{PROGRAM} is not installed (Debian: miniupnpd-nftables)"

RULES = """
table inet portmap {
    chain allowed {
    }
    chain mapped {
    }
    chain outward {
    }
    chain inward {
        type nat hook prerouting priority -100
        iifname "wan" jump mapped
    }
}
"""
"""The chains it writes into. What it translates the lab's own filter lets in."""

DEAF = """
table inet deaf {{
    chain input {{
        type filter hook input priority -10
        udp dport 5351 @th,64,8 {version} drop
    }}
}}
"""
"""It always speaks both protocols of this port; their first byte tells them apart."""

VERSIONS = {"PCP": 2, "NAT-PMP": 0}


class PortMapper:
    """A running miniupnpd. It ends with the namespace of its router."""

    def __init__(self, router: Router, place: Path, only: str = "") -> None:
        self.router = router
        self.place = place
        self.upnp = only in {"", "UPnP"}
        self.pmp = only != "UPnP"
        router.nft(RULES)
        if only in VERSIONS:
            other = next(version for name, version in VERSIONS.items() if name != only)
            router.nft(DEAF.format(version=other))
        self.start()

    def start(self) -> Self:
        config = self.place / f"{self.router.name}.conf"
        config.write_text(
            "ext_ifname=wan\nlistening_ip=lan\nhttp_port=0\nsecure_mode=yes\nipv6_disable=yes\nmin_lifetime=120\n"
            f"enable_natpmp={'yes' if self.pmp else 'no'}\nenable_upnp={'yes' if self.upnp else 'no'}\n"
            "upnp_table_name=portmap\nupnp_nat_table_name=portmap\nupnp_forward_chain=allowed\n"
            "upnp_nat_chain=mapped\nupnp_nat_postrouting_chain=outward\n"
            "uuid=5f1f3b7a-4a4d-4d1c-9a55-6d6d5b1d9b01\n"
            f"allow 1024-65535 {self.router.lan}.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
        )
        with (self.place / f"{self.router.name}.log").open("ab") as log:
            self.process = self.router.popen(
                PROGRAM, "-d", "-f", config, "-P", self.place / f"{self.router.name}.pid", stdout=log, stderr=log
            )
        return self

    def restart(self) -> None:
        """Lose power: the mappings are gone, and the hosts are told when it is back."""
        self.process.kill()
        self.process.wait()
        self.router.nft("flush chain inet portmap mapped\nflush chain inet portmap allowed\n")
        self.start()

    def mappings(self) -> str:
        """The rules that forward ports, in nft's words; empty when there are none."""
        listed = self.router.run("nft", "-n", "list", "chain", "inet", "portmap", "mapped")
        return "\n".join(line.strip() for line in listed.splitlines() if "dnat" in line)
