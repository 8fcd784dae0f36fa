"""Metadata: commands whose output is shown beside the workspace, each run at its interval."""

from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from google.protobuf.duration_pb2 import Duration

from coder.agent import calls
from coder.agent.processes import Processes, Surroundings
from coder.clock import Clock
from coder.errors import RpcError
from coder.peering.tasks import together
from coder.rpc.client import RpcClient
from coder.wire.proto import agent_pb2 as pb

MAX_VALUE = 2048
"""Bytes of a value; the protocol's number."""

MAX_ITEMS = 128
"""Commands obeyed of one manifest."""

SEND_EVERY = 1.0
"""Seconds between two reports, when there is something to report."""

DEFAULT_TIMEOUT = 3.0
"""Seconds a command has that runs once and names none."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Item:
    """One command."""

    key: str
    script: str
    interval: float
    """Seconds between two runs; 0: it runs once."""
    timeout: float

    @classmethod
    def of(cls, told: pb.WorkspaceAgentMetadata.Description) -> "Item":
        """Take it from the manifest."""
        interval = seconds(told.interval)
        return cls(told.key, told.script, interval, seconds(told.timeout) or interval or DEFAULT_TIMEOUT)


def seconds(told: Duration) -> float:
    """Read a duration of a description: seconds travel as nanoseconds, but a whole second was surely meant as one."""
    if told.seconds:
        return max(0.0, told.seconds + told.nanos / 1e9)
    return float(max(0, told.nanos))


class Metadata:
    """Collects values and reports them while there is a connection."""

    def __init__(
        self,
        told: Iterable[pb.WorkspaceAgentMetadata.Description],
        around: Surroundings,
        *,
        processes: Processes,
        clock: Clock,
    ) -> None:
        self._items = [Item.of(each) for each in list(told)[:MAX_ITEMS] if each.key]
        self._around = around
        self._processes = processes
        self._clock = clock
        self._found: dict[str, pb.WorkspaceAgentMetadata.Result] = {}

    async def report(self, rpc: RpcClient) -> None:
        """Run the commands and tell the server of what they print, until cancelled or the connection ends."""
        await together(*map(self._recurring, self._items), self._send(rpc))

    async def _recurring(self, item: Item) -> None:
        while True:
            began = self._clock.monotonic()
            self._found[item.key] = await self._collect(item)
            if not item.interval:
                return
            await self._clock.sleep(max(item.interval - (self._clock.monotonic() - began), SEND_EVERY))

    async def _collect(self, item: Item) -> pb.WorkspaceAgentMetadata.Result:
        printed = bytearray()

        def output(data: bytes) -> None:
            printed.extend(data[: MAX_VALUE + 1 - len(printed)])

        command = self._around.command(item.script)
        ended = await self._processes.run(command, self._around, output, limit=item.timeout, keep=False)
        result = pb.WorkspaceAgentMetadata.Result(value=_value(bytes(printed)))
        result.collected_at.FromDatetime(self._clock.now())
        if ended.problem:
            result.error = f"could not be started: {ended.problem}"
        elif ended.timed_out:
            result.error = f"took longer than {item.timeout:g} s"
        elif ended.code:
            result.error = f"failed with exit code {ended.code}"
        elif len(printed) > MAX_VALUE:
            result.error = f"printed more than {MAX_VALUE} bytes; the rest is left out"
        return result

    async def _send(self, rpc: RpcClient) -> None:
        while True:
            await self._clock.sleep(SEND_EVERY)
            found, self._found = self._found, {}
            if found:
                try:
                    await calls.metadata(rpc, found)
                except RpcError as error:
                    log.debug("metadata.refused", reason=str(error))


def _value(printed: bytes) -> str:
    text = printed[:MAX_VALUE].decode("utf-8", "ignore" if len(printed) > MAX_VALUE else "replace")
    text = text.strip().replace("\0", "")
    while len(text.encode()) > MAX_VALUE:  # what stands for bytes that are no text is longer than they were
        text = text[: -((len(text.encode()) - MAX_VALUE + 2) // 3)]
    return text
