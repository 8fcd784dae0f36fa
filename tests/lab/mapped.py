"""A UDP socket whose port the router is asked for: runs inside a namespace, obeys lines and tells lines of JSON.

`skip SECONDS` moves its clock on, `end` ends it properly. It tells `mapped` with the endpoints, `report` with how it
stands (also after each skip), `heard` with what arrived at the socket and from where.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime

from coder.peering.portmapping import PortMapping


def tell(what: str, **facts: object) -> None:
    sys.stdout.write(json.dumps({"at": time.monotonic(), "what": what} | facts) + "\n")
    sys.stdout.flush()


class SkippingClock:
    """The system's clock, which can be moved on: whoever sleeps wakes in time."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.skipped = asyncio.Condition()

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        while (left := until - self.monotonic()) > 0:
            try:
                async with asyncio.timeout(left), self.skipped:
                    await self.skipped.wait()
            except TimeoutError:
                return

    async def skip(self, seconds: float) -> None:
        self.ahead += seconds
        async with self.skipped:
            self.skipped.notify_all()


class Socket(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data, addr):
        tell("heard", text=data.decode(), source=addr[0])

    def udp_ports(self):
        return self.port, 0

    def set_mapped(self, endpoints):
        tell("mapped", endpoints=list(endpoints))


async def main() -> None:
    loop, clock = asyncio.get_running_loop(), SkippingClock()
    transport, node = await loop.create_datagram_endpoint(Socket, local_addr=("0.0.0.0", 0))
    mapping = PortMapping(node, clock=clock, on_change=lambda report: tell("report", **asdict(report)))
    mapping.start()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while (line := (await reader.readline()).decode().split()) and line[0] != "end":
        if line[0] == "skip":
            await clock.skip(float(line[1]))
        tell("report", **asdict(mapping.report()))
    await mapping.close()
    transport.close()
    tell("over", port=node.port)


if __name__ == "__main__":
    asyncio.run(main())
