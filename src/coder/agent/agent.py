"""The life of an agent: dial, be told who we are, serve, and begin anew whenever the connection to the server ends.

The tunnel outlives all that: its node is made once, and established connections notice nothing.
"""

import asyncio
import os
import random
from typing import TYPE_CHECKING

import structlog

from coder.agent import calls, shell
from coder.agent.node import node_settings
from coder.agent.services import Services, peers_path
from coder.agent.sessions import Sessions
from coder.agent.settings import AgentSettings
from coder.agent.stats import Meter
from coder.agent.workload import Workload, place
from coder.clock import Clock, SystemClock
from coder.errors import CoderError, RpcError, UpgradeRefused
from coder.ids import uuid_from_bytes
from coder.peering import Backoff, Dial, Host, Peering
from coder.peering.dialing import reason
from coder.peering.tasks import until_one_ends
from coder.rpc.client import RpcClient
from coder.wire.derpmap import from_proto
from coder.wire.proto import agent_pb2 as pb

if TYPE_CHECKING:
    from uuid import UUID

    from coder.agent.processes import Surroundings
    from coder.dataplane.engine import Engine
    from coder.dataplane.ssh import SshPolicy

FIRST_RETRY, LAST_RETRY = 0.1, 10.0
"""Seconds between two dials, at first and at most."""

FIRST_PLEA, LAST_PLEA = 1.0, 60.0
"""The same after the server said that it does not know the token: it may again, but not soon."""

FAREWELL = 2.0
"""Seconds the server has to take our leave."""

GOODBYE = 0.2
"""Seconds to wait for it to close the connection afterwards."""

MAX_UNTOLD = 1024
"""Connections the server is still to be told of; while it is away for so long that there are more, they are lost."""

MIN_REPORT = 10.0
"""Seconds between two reports, however often a server asks for them: an idle agent should sleep."""

INSTANCE = "Coder-Agent-Instance"
"""Header with a UUID of this process: with it a server knows an agent that comes back from a second one."""

log = structlog.get_logger()


class Agent:
    """One agent. `run` is its life; `stop` ends it properly."""

    def __init__(
        self,
        settings: AgentSettings,
        engine: "Engine",
        dial: Dial,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._dial = dial
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY, self._rng)
        self._pleas = Backoff(FIRST_PLEA, LAST_PLEA, self._rng)
        self._stop = asyncio.Event()
        self._farewell = asyncio.Event()
        self._peering: Peering | None = None
        self._services: Services | None = None
        self._id: UUID | None = None
        self._rpc: RpcClient | None = None
        self._work: Workload | None = None
        self._told = ""
        self._connections: asyncio.Queue[pb.Connection] = asyncio.Queue(MAX_UNTOLD)
        self._telling: pb.Connection | None = None

    def stop(self) -> None:
        """Ask `run` to say goodbye and return."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until stopped. No refusal is final: the server may be restarted, the token may be made valid."""
        serving, stopped = asyncio.ensure_future(self._serve()), asyncio.ensure_future(self._stopped())
        try:
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            (serving if serving.done() else stopped).result()
        finally:
            serving.cancel()
            stopped.cancel()
            await asyncio.wait({serving, stopped}, timeout=GOODBYE)
            if self._work is not None:
                await self._work.close()
            if self._services is not None:
                await self._services.close()
            if self._peering is not None:
                await self._peering.unmap()
                self._peering.close()

    async def _serve(self) -> None:
        while True:
            pause = self._backoff
            try:
                await self._session()
            except CoderError as error:
                self._tell(reason(error), error)
                if _token_refused(error):
                    pause = self._pleas
                    if self._peering is not None:
                        self._peering.drop_peers()
                elif _token_in_use(error):
                    pause = self._pleas
            else:
                self._tell("the server ended the connection", None)
            await (self._clock.sleep if self._peering is None else self._peering.moves.pause)(pause.delay())

    async def _session(self) -> None:
        """Hold one connection to the server, from dialling to its end."""
        dialling = self._dial(None) if self._peering is None else self._peering.moves.dial(self._dial, None)
        async with RpcClient(await dialling, clock=self._clock) as rpc:
            manifest = await calls.manifest(rpc)
            peering, work = self._prepare(manifest)
            directory, subsystems = shell.directory(manifest, os.environ), _subsystems(self._settings)
            await calls.startup(rpc, self._settings.version, directory, subsystems)
            self._backoff.reset()
            self._pleas.reset()
            self._told = ""
            log.info("agent.connected", server=self._settings.url, workspace=manifest.workspace_name)
            self._rpc = rpc
            try:
                around = self._begin(manifest, work)
                await until_one_ends(
                    peering.introduce(rpc),
                    self._report(rpc, peering),
                    self._serve_shell(rpc, manifest, work),
                    work.serve(rpc, manifest, around),
                    _ended(rpc),
                )
                if self._stop.is_set():
                    await self._farewell.wait()  # the server hangs up on our leave before we have said the last word
            finally:
                self._rpc = None

    def _prepare(self, manifest: pb.Manifest) -> tuple[Peering, Workload]:
        """Make the node when there is none for this identity, and let it follow the manifest."""
        identity = uuid_from_bytes(manifest.agent_id, where="manifest.agent_id")
        if self._peering is None or self._work is None or identity != self._id:
            if self._peering is not None:
                self._peering.close()
            self._work = Workload(self._settings, self._clock, place(self._settings, identity, os.environ))
            self._services = Services(peers_path(self._settings.token))
            self._peering = Peering(
                self._engine,
                node_settings(self._settings, manifest, identity),
                Host(identity),
                url=self._settings.url,
                on_event=self._services.on_event,
                map_ports=self._settings.map_ports,
                clock=self._clock,
                rng=self._rng,
            )
            self._services.peering = self._peering
            self._id = identity
        self._shell(manifest, self._work)
        self._peering.set_block_direct(self._settings.block_direct or manifest.disable_direct_connections)
        self._peering.node.set_force_websockets(manifest.derp_force_websockets)
        self._peering.set_map(from_proto(manifest.derp_map))
        return self._peering, self._work

    def _begin(self, manifest: pb.Manifest, work: Workload) -> "Surroundings":
        """Let the scripts run, if they have not yet; return what commands find now."""
        around = shell.surroundings(self._policy(manifest, work))
        work.begin(manifest, around)
        return around

    async def _report(self, rpc: RpcClient, peering: Peering) -> None:
        """Report traffic as often as the server wants it."""
        meter = Meter(peering.node)
        interval = await calls.stats(rpc, None)
        while True:
            await self._clock.sleep(max(interval.total_seconds(), MIN_REPORT))
            interval = await calls.stats(rpc, meter.read())

    def _policy(self, manifest: pb.Manifest, work: Workload, banners: tuple[str, ...] = ()) -> "SshPolicy":
        return shell.policy(
            manifest,
            directory=shell.directory(manifest, os.environ),
            token=self._settings.token.reveal(),
            banners=banners,
            environ=os.environ,
            programs=work.programs if manifest.scripts else "",
            block_file_transfer=self._settings.block_file_transfer,
        )

    def _shell(self, manifest: pb.Manifest, work: Workload, banners: tuple[str, ...] = ()) -> None:
        """Let SSH sessions that begin from now on find what the manifest and the server say."""
        services = self._services
        if services is None:
            return
        policy = self._policy(manifest, work, banners)
        if services.sessions is None:
            services.sessions = Sessions(
                shell.host_seed(self._settings.token),
                policy,
                self._clock,
                self._note_connection,
                silence=self._settings.ssh_silence,
            )
        else:
            services.sessions.set_policy(policy)

    def _note_connection(self, connection: pb.Connection) -> None:
        copied = pb.Connection()
        copied.CopyFrom(connection)
        if self._connections.full():
            self._connections.get_nowait()
            self._connections.task_done()
        self._connections.put_nowait(copied)

    async def _serve_shell(self, rpc: RpcClient, manifest: pb.Manifest, work: Workload) -> None:
        """Ask for what users are to read, then report who comes and goes."""
        try:
            self._shell(manifest, work, await calls.banners(rpc))
        except RpcError as error:
            log.debug("banners.none", reason=str(error))
        while True:
            # What was not told when the connection to the server ended is told by the next.
            self._telling = self._telling or await self._connections.get()
            try:
                await calls.report_connection(rpc, self._telling)
            except RpcError as error:
                log.debug("connection.not_reported", reason=str(error))
            self._telling = None
            self._connections.task_done()

    async def _stopped(self) -> None:
        """Wait for `stop`, run the stop scripts, then take leave of the server if it is there."""
        await self._stop.wait()
        try:
            if self._work is not None:
                await self._work.stop()
            rpc, peering, work = self._rpc, self._peering, self._work
            if rpc is not None and peering is not None and work is not None:
                async with asyncio.timeout(FAREWELL):
                    await until_one_ends(self._take_leave(work, peering), _ended(rpc))
        except (TimeoutError, CoderError) as error:
            log.debug("agent.farewell_failed", reason=str(error))
        finally:
            self._farewell.set()
            log.info("agent.stopped")

    async def _take_leave(self, work: Workload, peering: Peering) -> None:
        """End the sessions and let the server hear of that too, before it hears that we go."""
        if self._services is not None and self._services.sessions is not None:
            await self._services.sessions.close()
        await self._connections.join()
        await work.told()
        await peering.leave()

    def _tell(self, cause: str, error: CoderError | None) -> None:
        """Log why there is no connection: once for each cause in a row."""
        level = log.debug if cause == self._told else log.warning
        self._told = cause
        remedy = _remedy(error)
        level("agent.not_connected", server=self._settings.url, reason=cause, **({"remedy": remedy} if remedy else {}))


async def _ended(rpc: RpcClient) -> None:
    fault = await rpc.wait_closed()
    if fault is not None:
        raise fault


def _subsystems(settings: AgentSettings) -> "list[calls.Subsystem.ValueType]":
    known = dict(calls.Subsystem.items())
    return [known[name.upper()] for name in settings.subsystems if name.upper() in known]


def _token_refused(error: CoderError | None) -> bool:
    return isinstance(error, UpgradeRefused) and error.http_status == 401


def _token_in_use(error: CoderError) -> bool:
    return isinstance(error, UpgradeRefused) and error.http_status == 409


def _remedy(error: CoderError | None) -> str:
    if error is not None and _token_in_use(error):
        return "Stop the other agent, or give this one a workspace of its own: 'coder create' makes one."
    if _token_refused(error):
        return "If the workspace is stopped, 'coder start' lets it in again; if not, check CODER_AGENT_TOKEN."
    return error.remedy if error is not None else ""
