"""Port mapping: conversations between the machine and routers, good and bad, under a virtual clock."""

import random
from ipaddress import IPv4Address

import pytest
from fakes.router import ADDRESS, FakeRouter
from hypothesis import given
from hypothesis import strategies as st

from coder.tailnet.portmap import machine
from coder.tailnet.portmap.machine import PortMap
from coder.tailnet.portmap.report import Protocol
from coder.tailnet.portmap.values import LEASE, Http, Mapped, Network, ToGateway, ToSsdp
from coder.wire import natpmp, pcp, ssdp, upnp

LOCAL = IPv4Address("192.168.1.2")
PORT = 41641
LATENCY = 0.001


class Talk:
    """One machine and the router it talks to. What is sent arrives after `LATENCY`, and so does the answer."""

    def __init__(self, router: FakeRouter, *, start: bool = True) -> None:
        self.router = router
        self.now = 0.0
        self.machine = PortMap(random.Random(7).randbytes)
        self.mapped: list[tuple[str, ...]] = []
        self.sent: list[tuple[float, object]] = []
        self.events: list[tuple[float, int, object]] = []
        if start:
            self.machine.set_network(0.0, Network(router.address, LOCAL))
            self.machine.set_port(0.0, PORT)
            self.drain()

    def drain(self) -> None:
        while (output := self.machine.poll()) is not None:
            if isinstance(output, Mapped):
                self.mapped.append(output.endpoints)
                continue
            self.sent.append((self.now, output))
            self.events.append((self.now + LATENCY, len(self.sent), output))

    def run(self, seconds: float) -> "Talk":
        until = self.now + seconds
        while True:
            timeout = self.machine.next_timeout()
            arrives = min(self.events, default=None, key=lambda event: event[:2])
            if arrives is not None and arrives[0] <= min(until, timeout if timeout is not None else until):
                self.events.remove(arrives)
                self.now = arrives[0]
                self.deliver(arrives[2])
            elif timeout is not None and timeout <= until:
                self.now = max(self.now, timeout)
                self.machine.handle_timeout(self.now)
            else:
                self.now = until
                return self
            self.drain()

    def deliver(self, output: object) -> None:
        router, at = self.router, self.now
        match output:
            case ToGateway(data):
                if not router.pcp and not router.pmp:
                    if router.listens:
                        self.machine.gateway_silent(at)
                elif (answer := router.datagram(at, data)) is not None:
                    self.machine.gateway_datagram(at, answer)
            case ToSsdp(data):
                if (answer := router.search(data)) is not None:
                    self.machine.found(at, answer)
            case Http(number, url, action, body):
                answer = router.http(at, url.path, action, body) if router.upnp else None
                if answer is None:
                    self.machine.failed(at, number, "it did not answer")
                else:
                    self.machine.answered(at, number, answer)

    @property
    def report(self):
        return self.machine.report()


ALL = [
    ({"pcp": True}, Protocol.PCP),
    ({"pmp": True}, Protocol.PMP),
    ({"upnp": True}, Protocol.UPNP),
    ({"pcp": True, "pmp": True, "upnp": True}, Protocol.PCP),
    ({"pmp": True, "upnp": True}, Protocol.PMP),
    ({"pcp": True, "upnp": True}, Protocol.PCP),
]
ONLY = {
    Protocol.PCP: {"pmp": False, "upnp": False},
    Protocol.PMP: {"pcp": False, "upnp": False},
    Protocol.UPNP: {"pcp": False, "pmp": False},
}


def router(**features: object) -> FakeRouter:
    return FakeRouter(**({"pcp": False, "pmp": False, "upnp": False} | features))


@pytest.mark.parametrize(("features", "expected"), ALL)
def test_the_best_protocol_the_router_speaks_is_used(features, expected):
    talk = Talk(router(**features)).run(3)
    assert talk.mapped == [(f"5.9.0.1:{PORT}",)]
    assert [entry.internal for entry in talk.router.table.values()] == [PORT]
    report = talk.report
    assert report.via is expected
    assert report.external == f"5.9.0.1:{PORT}"
    assert report.gateway == "192.168.1.1"
    assert (report.pcp, report.pmp, report.upnp) == tuple(features.get(one, False) for one in ("pcp", "pmp", "upnp"))
    assert not report.error


@pytest.mark.parametrize("features", [features for features, _ in ALL])
def test_a_mapping_is_there_within_a_few_round_trips(features):
    talk = Talk(router(**features)).run(0.02)
    assert talk.mapped or "pcp" not in features
    assert talk.run(0.3).mapped


def test_the_report_says_nothing_before_it_knows():
    talk = Talk(router(pmp=True), start=False)
    assert talk.report.error == "there is no default route"
    talk.machine.set_network(0.0, Network(ADDRESS, LOCAL))
    talk.machine.set_port(0.0, PORT)
    assert (talk.report.pcp, talk.report.pmp, talk.report.upnp) == (None, None, None)
    assert talk.report.external is None


def test_a_silent_router_hears_little_and_ever_less():
    talk = Talk(router(listens=False)).run(machine.PROBING)
    assert len(talk.sent) == 15
    assert talk.report.error == "the router answers neither PCP nor NAT-PMP nor UPnP"
    assert (talk.report.pcp, talk.report.pmp, talk.report.upnp) == (False, False, False)
    talk.run(24 * 3600)
    rounds = sorted({int(at // 10) for at, _ in talk.sent})
    assert len(rounds) < 52
    assert len(talk.sent) == 15 * len(rounds)
    assert not talk.mapped


def test_a_refused_port_is_an_answer():
    talk = Talk(router()).run(0.1)
    assert (talk.report.pcp, talk.report.pmp, talk.report.upnp) == (False, False, None)
    assert len(talk.run(10).sent) == 2 + 3 * 3


def test_a_new_network_is_probed_at_once():
    talk = Talk(router(listens=False)).run(100)
    talk.router = router(pcp=True)
    talk.machine.set_network(talk.now, Network(ADDRESS, LOCAL))
    talk.drain()
    assert talk.run(0.1).mapped == [(f"5.9.0.1:{PORT}",)]


def test_losing_the_network_takes_the_mapping_away():
    talk = Talk(router(pcp=True)).run(1)
    talk.machine.set_network(talk.now, None)
    talk.drain()
    assert talk.mapped[-1] == ()
    assert talk.report.error == "there is no default route"
    assert talk.machine.next_timeout() is None


@pytest.mark.parametrize("protocol", Protocol)
def test_a_mapping_is_renewed_at_half_its_life_and_keeps_its_port(protocol):
    talk = Talk(FakeRouter(**ONLY[protocol], taken={PORT})).run(LEASE * 3)
    asks = [word for word in talk.router.log if word in {"pcp-map", "pmp-map"} or word.startswith("Add")]
    assert len(asks) == (7 if protocol is Protocol.UPNP else 6)  # UPnP says of a taken port that it is taken
    assert len(set(talk.mapped)) == 1
    assert f"5.9.0.1:{next(iter(talk.router.table))}" == talk.mapped[0][0]
    assert PORT not in talk.router.table


@pytest.mark.parametrize("protocol", [Protocol.PCP, Protocol.PMP])
@pytest.mark.parametrize("steps", range(5))
def test_being_suspended_while_answers_wait_is_no_silence_of_the_router(protocol, steps):
    """After the pause the timers come first, and only then what lies in the sockets."""
    talk = Talk(FakeRouter(**ONLY[protocol])).run(steps * LATENCY)
    talk.now += 100
    for _ in range(2):
        talk.machine.handle_timeout(talk.now)
        talk.drain()
    assert talk.run(1).mapped == [(f"5.9.0.1:{PORT}",)]


def test_being_suspended_during_the_last_wait_gives_the_answer_its_time():
    class Slow(FakeRouter):
        def datagram(self, now, data):
            answer = super().datagram(now, data)
            return answer if self.log.count("pcp-map") in {0, 4} else None

    talk = Talk(Slow(pmp=False, upnp=False))
    while talk.router.log.count("pcp-map") < 3 or not talk.events:
        talk.run(LATENCY)
    talk.now += 100
    talk.machine.handle_timeout(talk.now)
    talk.drain()
    assert talk.run(1).mapped == [(f"5.9.0.1:{PORT}",)]


@pytest.mark.parametrize("protocol", Protocol)
def test_leaving_undoes_the_mapping(protocol):
    talk = Talk(FakeRouter(**ONLY[protocol])).run(3)
    assert talk.router.table
    talk.machine.release()
    talk.drain()
    talk.run(1)
    assert not talk.router.table
    assert talk.mapped[-1] == ()
    assert talk.machine.next_timeout() is None
    assert talk.report.external is None


@pytest.mark.parametrize("protocol", Protocol)
def test_leaving_in_the_middle_of_asking_undoes_it_too(protocol):
    for steps in range(14):
        talk = Talk(FakeRouter(**ONLY[protocol]))
        talk.run(steps * LATENCY + LATENCY / 2)
        talk.machine.release()
        talk.drain()
        talk.run(5)
        assert not talk.router.table, f"after {steps} steps"


@pytest.mark.parametrize("protocol", Protocol)
def test_another_port_of_ours_replaces_the_mapping(protocol):
    talk = Talk(FakeRouter(**ONLY[protocol])).run(3)
    talk.machine.set_port(talk.now, 5000)
    talk.drain()
    talk.run(3)
    assert [entry.internal for entry in talk.router.table.values()] == [5000]
    assert talk.mapped == [(f"5.9.0.1:{PORT}",), (), ("5.9.0.1:5000",)]


@pytest.mark.parametrize("protocol", Protocol)
def test_a_restarted_router_is_noticed_and_asked_again(protocol):
    talk = Talk(FakeRouter(**ONLY[protocol])).run(1000)
    talk.router.restart(talk.now)
    talk.run(machine.CHECK + 1)
    assert [entry.internal for entry in talk.router.table.values()] == [PORT]


def test_an_announcement_brings_the_mapping_back_at_once():
    talk = Talk(router(pcp=True)).run(100)
    talk.router.restart(talk.now)
    talk.machine.gateway_datagram(talk.now, talk.router.announce(talk.now))
    talk.drain()
    talk.run(0.1)
    assert talk.router.table


@pytest.mark.parametrize("protocol", [Protocol.PMP, Protocol.UPNP])
def test_a_new_external_address_is_noticed(protocol):
    talk = Talk(FakeRouter(**ONLY[protocol])).run(10)
    talk.router.external = IPv4Address("5.9.0.2")
    talk.run(machine.CHECK + 1)
    assert talk.mapped[-1] == (f"5.9.0.2:{PORT}",)


def test_a_router_that_forgot_and_refuses_is_given_up():
    talk = Talk(router(pcp=True)).run(100)
    talk.router.restart(talk.now)
    talk.router.refuse = pcp.Result.NO_RESOURCES
    talk.run(machine.CHECK - 90)
    assert talk.mapped[-1] == ()
    assert talk.report.error == "PCP: it refused: no resources"
    talk.router.refuse = 0
    assert talk.run(70).mapped[-1] == (f"5.9.0.1:{PORT}",)


def test_a_router_that_vanished_keeps_its_lease_until_the_end():
    talk = Talk(router(pcp=True)).run(100)
    talk.router.pcp = talk.router.listens = False
    talk.run(LEASE - 200)
    assert talk.mapped == [(f"5.9.0.1:{PORT}",)]
    talk.run(300)
    assert talk.mapped[-1] == ()


@pytest.mark.parametrize(
    ("protocol", "refuse", "words"),
    [
        (Protocol.PCP, 2, "PCP: it refused: not authorized"),
        (Protocol.PCP, 99, "PCP: it refused with result 99"),
        (Protocol.PMP, 4, "NAT-PMP: it refused: out of resources"),
        (Protocol.UPNP, 606, "UPnP: it refused: Action not authorized (606)"),
    ],
)
def test_a_refusal_is_remembered(protocol, refuse, words):
    talk = Talk(FakeRouter(**ONLY[protocol], refuse=refuse)).run(5)
    assert talk.report.error == words
    assert talk.report.external is None
    assert getattr(talk.report, {"PCP": "pcp", "NAT-PMP": "pmp", "UPnP": "upnp"}[protocol]) is True


def test_a_network_failure_of_the_router_is_a_missing_address():
    report = Talk(FakeRouter(**ONLY[Protocol.PMP], refuse=natpmp.Result.NETWORK_FAILURE)).run(5).report
    assert report.error == "NAT-PMP: it has no public address"
    assert report.double_nat


def test_when_the_best_refuses_the_next_is_asked():
    class Partial(FakeRouter):
        def _pcp(self, request, epoch):
            self.refuse = 2
            answer = super()._pcp(request, epoch)
            self.refuse = 0
            return answer

    talk = Talk(Partial()).run(3)
    assert talk.report.via is Protocol.PMP
    assert talk.report.error == "PCP: it refused: not authorized"


@pytest.mark.parametrize("external", ["10.1.2.3", "100.64.3.4", "192.168.7.7", "172.20.0.1", "169.254.1.1"])
def test_a_private_address_is_used_when_it_is_all_there_is(external):
    talk = Talk(FakeRouter(external=IPv4Address(external))).run(5)
    assert talk.report.double_nat
    assert talk.mapped == [(f"{external}:{PORT}",)]
    assert [entry.internal for entry in talk.router.table.values()] == [PORT]


def test_a_private_address_is_returned_to_when_the_others_refuse():
    class OnlyPcpGrants(FakeRouter):
        def _act(self, now, call):
            return upnp.Fault(501, "Action Failed") if "Add" in call.action else super()._act(now, call)

    talk = Talk(OnlyPcpGrants(pmp=False, external=IPv4Address("100.64.3.4"))).run(5)
    assert talk.mapped == [(f"100.64.3.4:{PORT}",)]
    assert talk.report.via is Protocol.PCP
    assert talk.report.double_nat
    assert talk.router.table


def test_a_public_address_is_preferred_to_a_private_one():
    class Mixed(FakeRouter):
        def _act(self, now, call):
            return {"NewExternalIPAddress": "5.9.0.9"} if "GetExt" in call.action else super()._act(now, call)

    talk = Talk(Mixed(external=IPv4Address("100.64.3.4"))).run(5)
    assert talk.mapped == [(f"5.9.0.9:{PORT}",)]
    assert talk.report.via is Protocol.UPNP
    assert not talk.report.double_nat


@pytest.mark.parametrize("protocol", Protocol)
def test_a_router_without_an_address_grants_nothing(protocol):
    talk = Talk(FakeRouter(**ONLY[protocol], external=IPv4Address(0))).run(5)
    assert talk.mapped == []
    assert talk.report.error == f"{protocol}: it has no public address"
    assert talk.report.double_nat


@pytest.mark.parametrize("protocol", [Protocol.PCP, Protocol.PMP])
@pytest.mark.parametrize("lifetime", [1, 119])
def test_a_lease_too_short_is_a_refusal(protocol, lifetime):
    talk = Talk(FakeRouter(**ONLY[protocol], lifetime=lifetime)).run(5)
    assert talk.mapped == []
    assert talk.report.error == f"{protocol}: it grants too short a lease"


def test_a_longer_lease_than_asked_for_is_renewed_all_the_same():
    talk = Talk(FakeRouter(**ONLY[Protocol.PCP], lifetime=2**32 - 1)).run(LEASE)
    assert talk.router.log.count("pcp-map") == 2


# UPnP's own


def upnp_router(**features: object) -> FakeRouter:
    return FakeRouter(**ONLY[Protocol.UPNP], **features)


def test_version_two_chooses_another_port_by_itself():
    talk = Talk(upnp_router(service=upnp.IP_2, taken={PORT})).run(3)
    assert talk.mapped == [(f"5.9.0.1:{PORT + 1}",)]
    assert "AddPortMapping" not in talk.router.log


def test_what_only_claims_to_be_version_two_is_asked_like_version_one():
    class Liar(FakeRouter):
        def _add(self, call):
            self.service = upnp.IP_1
            return super()._add(call)

    talk = Talk(Liar(**ONLY[Protocol.UPNP], service=upnp.IP_2)).run(3)
    assert talk.mapped == [(f"5.9.0.1:{PORT}",)]


def test_a_router_without_leases_maps_for_good():
    talk = Talk(upnp_router(permanent_only=True)).run(3)
    assert [entry.lifetime for entry in talk.router.table.values()] == [0]
    talk.machine.release()
    talk.drain()
    assert not talk.run(1).router.table


def test_every_port_taken_ends_the_asking():
    talk = Talk(upnp_router(taken=set(range(65536)))).run(20)
    assert talk.router.log.count("AddPortMapping") == 5
    assert talk.report.error == "UPnP: it refused: ConflictInMappingEntry (718)"
    assert not any("Delete" in word for word in talk.router.log), "the mappings there are not ours to delete"


def test_a_service_without_a_connection_is_passed_over():
    class TwoLines(FakeRouter):
        def description(self):
            both = "".join(
                f"<service><serviceType>{kind}</serviceType><controlURL>{url}</controlURL></service>"
                for kind, url in ((upnp.IP_1, "/idle"), (upnp.PPP_1, "/used"))
            )
            return f"<root><device><serviceList>{both}</serviceList></device></root>".encode()

        def http(self, now, path, soap_action, body):
            if path == "/idle":
                call = upnp.decode_call(soap_action, body)
                return upnp.encode_answer(call, {"NewConnectionStatus": "Disconnected"})
            return super().http(now, path, soap_action, body)

    talk = Talk(TwoLines(**ONLY[Protocol.UPNP])).run(3)
    assert talk.mapped == [(f"5.9.0.1:{PORT}",)]
    assert {output.url.path for _, output in talk.sent if isinstance(output, Http)} == {
        "/rootDesc.xml",
        "/idle",
        "/used",
    }


# Hostile routers


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:80/",
        "http://192.168.1.2:5000/rootDesc.xml",
        "https://192.168.1.1/x",
        "file:///etc/passwd",
        "http://192.168.1.1@10.0.0.1/",
        "http://router/",
    ],
)
def test_a_description_elsewhere_is_never_fetched(location):
    talk = Talk(upnp_router(), start=False)
    talk.machine.set_network(0.0, Network(ADDRESS, LOCAL))
    talk.machine.set_port(0.0, PORT)
    found = ssdp.Found(target=upnp.GATEWAY_1, usn="uuid:1", location=location)
    talk.machine.found(0.0, ssdp.encode_found(found))
    talk.router.upnp = False
    talk.drain()
    talk.run(5)
    assert not [output for _, output in talk.sent if isinstance(output, Http)]
    assert talk.machine.refused == 1
    assert talk.report.upnp is False


def test_a_control_url_elsewhere_is_never_called():
    class Pointing(FakeRouter):
        def description(self):
            return super().description().replace(b"/ctl", b"http://10.9.9.9/ctl")

    talk = Talk(Pointing(**ONLY[Protocol.UPNP])).run(5)
    assert [output.url.path for _, output in talk.sent if isinstance(output, Http)] == ["/rootDesc.xml"]
    assert talk.report.error == "UPnP: it offers no service for port mappings"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"<root/>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><root>&b;</root>",
        b"<a>" + b"<b/>" * 100_000 + b"</a>",
    ],
)
def test_a_description_of_garbage_is_a_refusal(document):
    class Garbled(FakeRouter):
        def description(self):
            return document

    talk = Talk(Garbled(**ONLY[Protocol.UPNP])).run(5)
    assert talk.report.error.startswith("UPnP: it")
    assert talk.mapped == []


def test_words_of_a_router_are_cut_and_cleaned():
    class Chatty(FakeRouter):
        def _act(self, now, call):
            return upnp.Fault(501, "no\n\x1b[31m" + "x" * 500) if "Add" in call.action else super()._act(now, call)

    error = Talk(Chatty(**ONLY[Protocol.UPNP])).run(5).report.error
    assert len(error) < 130
    assert error.isprintable()


def test_wrong_epochs_cause_no_storm():
    talk = Talk(router(pcp=True)).run(100)
    before = talk.router.log.count("pcp-map")
    for number in range(1000):
        wrong = pcp.Response(opcode=0, result=0, lifetime=0, epoch=number % 2 * 10**6)
        talk.machine.gateway_datagram(talk.now, pcp.encode_response(wrong))
        talk.drain()
        talk.run(0.1)
    assert talk.router.log.count("pcp-map") - before <= 100 / machine.SHORTEST_RENEWAL + 1
    assert talk.mapped[-1] == (f"5.9.0.1:{PORT}",)


def test_answers_to_other_questions_grant_nothing():
    talk = Talk(router(listens=False))
    now, sound = talk.now, pcp.Mapping(nonce=bytes(12), internal_port=PORT, external_port=9, external_address=ADDRESS)
    for data in (
        pcp.encode_response(pcp.Response(opcode=1, result=0, lifetime=7200, epoch=1, mapping=sound)),
        natpmp.encode_response(
            natpmp.MapResponse(opcode=natpmp.Opcode.MAP_TCP, epoch=1, internal_port=PORT, external_port=9, lifetime=999)
        ),
        natpmp.encode_response(
            natpmp.MapResponse(opcode=natpmp.Opcode.MAP_UDP, epoch=1, internal_port=7, external_port=9, lifetime=999)
        ),
    ):
        talk.machine.gateway_datagram(now, data)
        talk.drain()
    assert talk.run(10).mapped == []


@given(st.lists(st.binary(max_size=80) | st.sampled_from([b"\x02\x81", b"\x00\x81\x00\x00"]), max_size=30), st.data())
def test_garbage_in_any_state_harms_nothing(datagrams, data):
    talk = Talk(FakeRouter())
    for datagram in datagrams:
        way = data.draw(st.integers(0, 2))
        if way == 0:
            talk.machine.gateway_datagram(talk.now, datagram)
        elif way == 1:
            talk.machine.found(talk.now, datagram)
        else:
            talk.machine.answered(talk.now, data.draw(st.integers(0, 20)), datagram)
        talk.drain()
        talk.run(data.draw(st.sampled_from([0.0, LATENCY, 1.0, 400.0])))
    assert talk.run(100).mapped[-1][0].startswith("5.9.0.1:")


STEPS = ["port", "network", "gone", "restart", "refuse", "grant", "silent", "speak"]


@given(st.lists(st.sampled_from(STEPS), max_size=12), st.sampled_from(list(Protocol)), st.integers(0, 10**6))
def test_whatever_happens_it_ends_well(steps, protocol, seed):
    """After any history, a router that grants has exactly our mapping; after the leave, none."""
    talk, chance = Talk(FakeRouter(**ONLY[protocol])), random.Random(seed)
    features = {"pcp": talk.router.pcp, "pmp": talk.router.pmp, "upnp": talk.router.upnp}
    port = PORT
    for step in steps:
        match step:
            case "port":
                port = chance.randrange(1024, 65536)
                talk.machine.set_port(talk.now, port)
            case "network":
                talk.machine.set_network(talk.now, Network(ADDRESS, LOCAL))
            case "gone":
                talk.machine.set_network(talk.now, None)
            case "restart":
                talk.router.restart(talk.now)
            case "refuse":
                talk.router.refuse = 2
            case "grant":
                talk.router.refuse = 0
            case "silent":
                talk.router.pcp = talk.router.pmp = talk.router.upnp = False
            case "speak":
                vars(talk.router).update(features)
        talk.drain()
        talk.run(chance.choice([0.0005, 0.01, 1.0, 100.0, 4000.0]))
    talk.router.refuse = 0
    vars(talk.router).update(features)
    talk.machine.set_network(talk.now, Network(ADDRESS, LOCAL))
    talk.drain()
    talk.run(5)
    assert port in [entry.internal for entry in talk.router.table.values()]
    external = next(number for number, entry in talk.router.table.items() if entry.internal == port)
    assert talk.mapped[-1] == (f"5.9.0.1:{external}",)
    talk.machine.release()
    talk.drain()
    talk.run(1)
    assert port not in [entry.internal for entry in talk.router.table.values()]
