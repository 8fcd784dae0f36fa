"""Two channels that end in each other."""

import asyncio
import contextlib

from coder.errors import Closed


class Pipe:
    """One end. `cut` breaks it as a lost connection would; `hold` makes its sends wait, as congestion would."""

    def __init__(self, incoming, outgoing):
        self._incoming, self._outgoing = incoming, outgoing
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.closed = False
        self.sent = []

    async def recv(self):
        return await self._incoming.get()

    async def send(self, data):
        await self.flowing.wait()
        if self.closed:
            raise Closed("the pipe is closed")
        self.sent.append(len(data))
        self._outgoing.put_nowait(data)

    async def close(self):
        self.cut()

    def cut(self):
        if not self.closed:
            self.closed = True
            self._outgoing.put_nowait(None)
            self._incoming.put_nowait(None)

    def hold(self):
        self.flowing.clear()


def pipe():
    one, other = asyncio.Queue(), asyncio.Queue()
    return Pipe(one, other), Pipe(other, one)


@contextlib.asynccontextmanager
async def running(coroutine):
    """Run something beside the test and end it with it."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle(turns=50):
    for _ in range(turns):
        await asyncio.sleep(0)
