"""Addresses and node numbers against recorded ones."""

import json
from ipaddress import IPv6Address
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from coder.errors import Malformed
from coder.tailnet import addresses

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/addresses.json").read_text())


@pytest.mark.parametrize("agent", VECTORS["agents"], ids=lambda a: a["uuid"])
def test_an_agents_addresses_and_number_follow_from_its_id(agent):
    owner = UUID(agent["uuid"])
    first, second = addresses.agent_addresses(owner)
    assert (str(first), str(second)) == (agent["tailscale_prefix_addr"], agent["coder_prefix_addr"])
    assert first.packed.hex() == agent["addr16"]
    assert addresses.agent_address(owner) == first
    assert addresses.host_prefix(first) == agent["prefix"]
    assert addresses.node_id(owner) == agent["node_id"]


def test_the_prefixes():
    assert str(addresses.TAILSCALE_PREFIX) == VECTORS["tailscale_service_prefix"]
    assert str(addresses.CODER_PREFIX) == VECTORS["coder_service_prefix"]


def test_a_clients_address_keeps_the_end_of_its_uuid():
    owner = uuid4()
    address = addresses.client_address(owner)
    assert address in addresses.TAILSCALE_PREFIX
    assert address.packed[6:] == owner.bytes[6:]


def test_host_prefixes_come_back():
    address = IPv6Address("fd7a:115c:a1e0::1")
    assert addresses.parse_host_prefix(addresses.host_prefix(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "fd7a::1", "fd7a::1/", "fd7a::1/x", "fd7a::1/-1", "10.0.0.1/32", "fd7a::1%eth0/128", "x/128", "::1/١٢٨"],
)
def test_what_is_no_prefix(text):
    with pytest.raises(Malformed, match="not an IPv6 prefix"):
        addresses.parse_host_prefix(text)


@pytest.mark.parametrize("bits", ["64", "0", "0128", "129"])
def test_prefixes_are_single_addresses(bits):
    with pytest.raises(Malformed, match=f"invalid address bits, expected 128, got {bits}"):
        addresses.parse_host_prefix(f"fd7a::1/{bits}")
