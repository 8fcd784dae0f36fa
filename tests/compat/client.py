"""A small client of its own: a WebSocket, yamux and dRPC by the bare codecs, one packet at a time.

It shares nothing with the clients and agents of this project but those codecs, so it can do what they never do.
"""

import asyncio
from collections import defaultdict, deque
from typing import Any, Self

from google.protobuf.message import Message
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from coder.wire import drpc, yamux

PATIENCE = 10
"""Seconds to wait for an answer; only a failing test waits that long."""


class Socket:
    """One socket of calls, and all that has happened on it."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self._mux = yamux.Session(client=True, now=0)
        self._packets: dict[int, deque[drpc.Packet]] = defaultdict(deque)
        self._readers: dict[int, drpc.PacketReader] = defaultdict(drpc.PacketReader)
        self._sent: dict[int, int] = defaultdict(int)
        self.finished: set[int] = set()
        self.pongs = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.websocket.close()

    async def open(self, rpc: str) -> int:
        """Begin a call and return its stream."""
        stream = self._mux.open()
        await self.packet(stream, drpc.Kind.INVOKE, rpc.encode())
        return stream

    async def message(self, stream: int, message: Message) -> None:
        await self.packet(stream, drpc.Kind.MESSAGE, message.SerializeToString())

    async def packet(self, stream: int, kind: drpc.Kind, data: bytes = b"") -> None:
        """Send one packet, as it is."""
        self._sent[stream] += 1
        self._mux.send(stream, drpc.encode(drpc.Packet(kind, 1, self._sent[stream], data)))
        await self._flush()

    async def ask(self, rpc: str, request: Message, answer: type[Message]) -> Any:
        """Call as the real peers do: invoke, message and the end of sending; the answer; the close of both."""
        stream = await self.open(rpc)
        await self.message(stream, request)
        await self.packet(stream, drpc.Kind.CLOSE_SEND)
        packet = await self.next(stream)
        assert packet.kind == drpc.Kind.MESSAGE, packet
        assert (await self.next(stream)).kind == drpc.Kind.CLOSE_SEND
        await self.packet(stream, drpc.Kind.CLOSE)
        return answer.FromString(packet.data)

    async def refusal(self, rpc: str, request: Message) -> int:
        """Call, and return the code of the error that answers."""
        stream = await self.open(rpc)
        await self.message(stream, request)
        await self.packet(stream, drpc.Kind.CLOSE_SEND)
        packet = await self.next(stream)
        assert packet.kind == drpc.Kind.ERROR, packet
        return int.from_bytes(packet.data[:8], "big")

    async def next(self, stream: int) -> drpc.Packet:
        """Wait for the next packet of a call."""
        while not self._packets[stream]:
            await self._receive()
        return self._packets[stream].popleft()

    async def answer(self, stream: int, kind: type[Message]) -> Any:
        packet = await self.next(stream)
        assert packet.kind == drpc.Kind.MESSAGE, packet
        return kind.FromString(packet.data)

    async def ping(self) -> None:
        """Send a yamux ping and wait for its answer."""
        before = self.pongs
        self._mux.ping(0)
        await self._flush()
        while self.pongs == before:
            await self._receive()

    async def end(self) -> int:
        """Wait until the server closes the WebSocket, and return with which code."""
        try:
            while True:
                await self._receive()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 0

    async def _receive(self) -> None:
        async with asyncio.timeout(PATIENCE):
            data = await self.websocket.recv()
        assert isinstance(data, bytes)
        for event in self._mux.receive(data, 0):
            match event:
                case yamux.Received(stream, payload):
                    self._packets[stream].extend(self._readers[stream].feed(bytes(payload)))
                    self._mux.consumed(stream, len(payload))
                case yamux.Finished(stream) | yamux.Reset(stream):
                    self.finished.add(stream)
                case yamux.Ponged():
                    self.pongs += 1
        await self._flush()

    async def _flush(self) -> None:
        if self._mux.pending:
            await self.websocket.send(self._mux.take())
