"""Sessions of the agent, by SSH and in terminals: both are started by the first one, and each is reported."""

import socket
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from coder.agent import calls
from coder.clock import Clock
from coder.dataplane.ssh import SshBegan, SshEnded, SshPolicy, SshServer
from coder.wire.proto import agent_pb2 as pb

if TYPE_CHECKING:
    from coder.agent.pty import Attached, Setting, Terminals

TYPES = {
    "ssh": pb.Connection.Type.SSH,
    "vscode": pb.Connection.Type.VSCODE,
    "jetbrains": pb.Connection.Type.JETBRAINS,
}


class Sessions:
    """What SSH clients of one agent do. `report` takes a connection to be told to the server; it must not block.

    `silence` is how many seconds a client may answer nothing; None: for ever.
    """

    def __init__(
        self,
        seed: bytes,
        policy: SshPolicy,
        clock: Clock,
        report: Callable[[pb.Connection], None],
        *,
        silence: float | None = None,
    ) -> None:
        self._seed = seed
        self._silence = silence
        self._policy = policy
        self._clock = clock
        self._report = report
        self._server: SshServer | None = None
        self._sources: dict[int, str] = {}
        self._began: dict[int, pb.Connection] = {}
        self._terminals: Terminals | None = None
        self._attached: dict[object, pb.Connection] = {}

    def set_policy(self, policy: SshPolicy) -> None:
        """Replace what sessions find from now on."""
        self._policy = policy
        if self._server is not None:
            self._server.set_policy(policy)
        if self._terminals is not None:
            self._terminals.setting = _setting(policy)

    def serve(self, stream: socket.socket, source: str) -> None:
        """Serve a client that came through the tunnel from this address; takes the stream over."""
        if self._server is None:
            self._server = SshServer(self._seed, self._policy, self._hear, silence=self._silence)
        self._sources[self._server.serve(stream)] = source

    def serve_terminal(self, stream: socket.socket, source: str) -> None:
        """Serve a client of the terminal port; takes the stream over."""
        if self._terminals is None:
            from coder.agent.pty import Terminals  # noqa: PLC0415 - many agents never have one

            self._terminals = Terminals(_setting(self._policy), self._clock, self._hear_terminal)
        self._terminals.serve(stream, source)

    async def close(self) -> None:
        """End them all."""
        if self._terminals is not None:
            terminals, self._terminals = self._terminals, None
            await terminals.close()
        if self._server is not None:
            server, self._server = self._server, None
            await server.close()

    def _hear(self, notice: SshBegan | SshEnded) -> None:
        match notice:
            case SshBegan():
                began = pb.Connection(
                    id=uuid.uuid4().bytes,
                    action=pb.Connection.Action.CONNECT,
                    type=TYPES.get(notice.kind, pb.Connection.Type.SSH),
                    timestamp=calls.timestamp(self._clock.now()),
                    ip=self._sources.get(notice.session, ""),
                )
                self._began[notice.session] = began
                self._report(began)
            case SshEnded():
                self._sources.pop(notice.session, None)
                ended = self._began.pop(notice.session, None)
                if ended is not None:
                    ended.action = pb.Connection.Action.DISCONNECT
                    ended.timestamp.CopyFrom(calls.timestamp(self._clock.now()))
                    ended.status_code = notice.status or 0
                    ended.reason = notice.reason
                    self._report(ended)

    def _hear_terminal(self, notice: "Attached") -> None:
        if notice.ended is None:
            began = self._attached[notice.key] = pb.Connection(
                id=uuid.uuid4().bytes,
                action=pb.Connection.Action.CONNECT,
                type=pb.Connection.Type.RECONNECTING_PTY,
                timestamp=calls.timestamp(self._clock.now()),
                ip=notice.source,
            )
            self._report(began)
        elif (ended := self._attached.pop(notice.key, None)) is not None:
            ended.action = pb.Connection.Action.DISCONNECT
            ended.timestamp.CopyFrom(calls.timestamp(self._clock.now()))
            ended.status_code = notice.status
            ended.reason = notice.ended
            self._report(ended)


def _setting(policy: SshPolicy) -> "Setting":
    from coder.agent.pty import Setting  # noqa: PLC0415 - as above

    environment = {**policy.defaults, **policy.overrides}
    return Setting(
        shell=policy.shell, directory=policy.directory, environment=environment, open_files=policy.open_files
    )
