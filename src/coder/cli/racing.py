"""Connecting to a host that has several addresses, of which some lead nowhere (RFC 8305)."""

import itertools
import os
import selectors
import socket
import time

STAGGER = 0.15
"""Seconds an attempt has to itself before the next address is tried beside it: a command makes two connections in turn,
and should still be there within a second."""


def create_connection(
    address: tuple[str, int], timeout: float, source_address: tuple[str, int] | None = None
) -> socket.socket:
    """Connect by TCP to whichever address answers first; families alternate, in the resolver's order.

    As `socket.create_connection`, whose place this takes, `timeout` is seconds and stays the socket's. Raises OSError:
    the first attempt's, or TimeoutError.
    """
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    preferred = found[0][0]
    families = ([one for one in found if (one[0] == preferred) == wanted] for wanted in (True, False))
    waiting = [one for pair in itertools.zip_longest(*families) for one in pair if one is not None]
    with selectors.DefaultSelector() as selector:
        try:
            winner = _race(waiting, selector, time.monotonic() + timeout, source_address)
        except BaseException:
            _close_all(selector)
            raise
        selector.unregister(winner)
        _close_all(selector)
    winner.settimeout(timeout)
    return winner


def _race(
    waiting: list[tuple[int, int, int, str, tuple[object, ...]]],
    selector: selectors.BaseSelector,
    deadline: float,
    source: tuple[str, int] | None,
) -> socket.socket:
    failures: list[OSError] = []
    while waiting or selector.get_map():
        if waiting:
            try:
                _attempt(waiting.pop(0), selector, source)
            except OSError as error:
                failures.append(error)
                continue
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        for key, _ in selector.select(min(left, STAGGER) if waiting else left):
            attempt = key.fileobj
            assert isinstance(attempt, socket.socket)
            failure = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not failure:
                return attempt
            failures.append(OSError(failure, os.strerror(failure)))
            selector.unregister(attempt)
            attempt.close()
    raise failures[0]


def _attempt(
    found: tuple[int, int, int, str, tuple[object, ...]],
    selector: selectors.BaseSelector,
    source: tuple[str, int] | None,
) -> None:
    family, kind, protocol, _, address = found
    attempt = socket.socket(family, kind, protocol)
    attempt.setblocking(False)
    try:
        if source is not None:
            attempt.bind(source)
        attempt.connect(address)
    except BlockingIOError:
        pass  # under way
    except OSError:
        attempt.close()
        raise
    selector.register(attempt, selectors.EVENT_WRITE)


def _close_all(selector: selectors.BaseSelector) -> None:
    for key in list(selector.get_map().values()):
        selector.unregister(key.fileobj)
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()
