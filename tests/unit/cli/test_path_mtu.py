from types import SimpleNamespace

from coder.cli import path_mtu


def peers(*endpoints):
    return [SimpleNamespace(endpoints=endpoints)]


def test_only_public_addresses_count():
    assert path_mtu.least(peers("127.0.0.1:4", "192.168.7.7:4", "[fe80::1]:4", "nonsense")) == 0
    assert path_mtu.least([]) == 0


def test_the_kernel_is_asked_for_each_destination(monkeypatch):
    monkeypatch.setattr(path_mtu, "is_local", lambda _address: False)
    assert path_mtu.least(peers("127.0.0.1:4")) >= 1280


def test_a_destination_that_cannot_be_reached_says_nothing(monkeypatch):
    monkeypatch.setattr(path_mtu, "is_local", lambda _address: False)
    assert path_mtu.least(peers("255.255.255.255:4")) == 0
