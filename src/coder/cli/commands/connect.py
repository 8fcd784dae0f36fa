"""`coder connect`: what SSH configurations ask before they start a tunnel of their own."""

import socket
import threading
from ipaddress import IPv6Address

import click

PATIENCE = 1.0
"""Seconds a name may take; every `ssh` to a workspace waits for the answer."""


@click.group("connect", hidden=True)
def command() -> None:
    """Ask about names that a system-wide tunnel resolves."""


@command.command("exists")
@click.argument("host")
def exists(host: str) -> int:
    """Exit with 0 if the name leads into a tunnel that this system keeps itself, else with 1."""
    found: list[str] = []
    look = threading.Thread(target=lambda: found.extend(_addresses(host)), daemon=True)
    look.start()
    look.join(PATIENCE)
    from coder.tailnet.addresses import CODER_PREFIX

    return 0 if any(IPv6Address(address) in CODER_PREFIX for address in found) else 1


def _addresses(host: str) -> list[str]:
    try:
        answers = socket.getaddrinfo(host, 22, socket.AF_INET6, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(answer[4][0]).partition("%")[0] for answer in answers]
