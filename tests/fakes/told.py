"""A server that remembers what an agent told it, and commands' surroundings."""

import asyncio
import contextlib

from coder.agent.processes import Surroundings
from coder.errors import RpcError


class Told:
    """Stands where the calls go out."""

    def __init__(self):
        self.calls = []
        self.answers = {}
        self.refused = set()
        self.heard = asyncio.Event()

    async def unary(self, name, request, response_type):
        name = name.rpartition("/")[2]
        self.calls.append((name, request))
        self.heard.set()
        if name in self.refused:
            raise RpcError("no")
        answer = self.answers.get(name)
        return answer if answer is not None else response_type()

    def of(self, name):
        return [request for called, request in self.calls if called == name]

    async def until(self, condition):
        """Wait for calls until one makes it true."""
        async with asyncio.timeout(20):
            while not condition():
                self.heard.clear()
                await self.heard.wait()


@contextlib.asynccontextmanager
async def running(job):
    task = asyncio.ensure_future(job)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def around(directory, **environment):
    return Surroundings(shell="/bin/sh", directory=str(directory), environment={"PATH": "/usr/bin:/bin"} | environment)
