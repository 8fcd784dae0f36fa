"""Internet Gateway Devices: descriptions, URLs, SOAP both ways."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.errors import Malformed
from coder.wire import upnp
from coder.wire.upnp import IP_1, IP_2, PPP_1, Call, Fault, Service, Url

LOCATION = Url(IPv4Address("192.168.1.1"), 5000, "/rootDesc.xml")
DESCRIPTION = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>1</minor></specVersion>{base}
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:2</deviceType><deviceList><device>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1</serviceType>
<controlURL>/ctl/CmnIfCfg</controlURL></service></serviceList><deviceList><device><serviceList>{services}</serviceList>
</device></deviceList></device></deviceList></device></root>"""
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=0xD7FF), max_size=20)
NAMES = st.from_regex(r"[A-Z][A-Za-z]{0,10}", fullmatch=True)


def service(kind: str, control: str) -> str:
    return f"<service><serviceType>{kind}</serviceType><controlURL>{control}</controlURL></service>"


def document(*services: str, base: str = "") -> bytes:
    return DESCRIPTION.format(base=base, services="".join(services)).encode()


def test_the_newest_service_comes_first():
    found = upnp.read_services(document(service(PPP_1, "/p"), service(IP_1, "/1"), service(IP_2, "/2")), LOCATION)
    assert [one.type for one in found] == [IP_2, IP_1, PPP_1]
    assert str(found[0].control) == "http://192.168.1.1:5000/2"


@pytest.mark.parametrize(
    ("base", "control", "expected"),
    [
        ("", "/ctl/IPConn", "http://192.168.1.1:5000/ctl/IPConn"),
        ("", "ctl/IPConn?a=b", "http://192.168.1.1:5000/ctl/IPConn?a=b"),
        ("", "http://192.168.1.1:80/x", "http://192.168.1.1:80/x"),
        ("<URLBase>http://192.168.1.1:49152/dir/</URLBase>", "ctl", "http://192.168.1.1:49152/dir/ctl"),
        ("<URLBase>http://10.0.0.1</URLBase>", "ctl", "http://10.0.0.1:80/ctl"),
    ],
)
def test_control_urls_are_completed(base, control, expected):
    [found] = upnp.read_services(document(service(IP_1, control), base=base), LOCATION)
    assert found == Service(IP_1, Url.parse(expected))


def test_services_of_no_use_are_left_out():
    useless = [service(IP_1, ""), service(IP_1, "https://192.168.1.1/"), service("urn:x", "/x"), "<service/>"]
    assert upnp.read_services(document(*useless, service(PPP_1, "/p")), LOCATION) == (
        Service(PPP_1, Url(LOCATION.host, 5000, "/p")),
    )


def test_a_description_cut_off_anywhere_is_refused():
    whole = document(service(IP_1, "/1"))
    for size in range(len(whole)):
        with pytest.raises(Malformed):
            upnp.read_services(whole[:size], LOCATION)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/relative",
        "https://192.168.1.1/",
        "ftp://192.168.1.1/",
        "file:///etc/passwd",
        "http://router.example/",
        "http://[fe80::1]/",
        "http://[::1",
        "http://user@192.168.1.1/",
        "http://192.168.1.1:0/",
        "http://192.168.1.1:99999/",
        "http://192.168.1.1:x/",
        "http://192.168.1.1/a b",
        "http://192.168.1.1/\u00fc",
        "http://3232235777/",
        "http://0300.0250.1.1/",
        "http://192.168.1.1/" + "a" * 2000,
    ],
)
def test_urls_that_are_never_fetched(text):
    with pytest.raises(Malformed):
        Url.parse(text)


CALLS = [
    upnp.add_mapping(
        IP_1, any_port=False, external=4000, internal=5000, client=IPv4Address("10.0.0.2"), lease=7200, about="a<b>&c"
    ),
    upnp.add_mapping(
        IP_2, any_port=True, external=1, internal=2, client=IPv4Address("10.0.0.2"), lease=0, about="coder"
    ),
    upnp.delete_mapping(IP_1, 4000),
    upnp.get_address(PPP_1),
    upnp.get_status(IP_2),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.action)
def test_calls_both_ways(call):
    body = upnp.encode_call(call)
    assert upnp.decode_call(call.soap_action, body) == call
    whole = body.rstrip()
    for size in range(len(whole)):
        with pytest.raises(Malformed):
            upnp.decode_call(call.soap_action, whole[:size])


def test_the_arguments_stand_in_the_order_of_the_service():
    assert list(CALLS[0].arguments) == [
        "NewRemoteHost",
        "NewExternalPort",
        "NewProtocol",
        "NewInternalPort",
        "NewInternalClient",
        "NewEnabled",
        "NewPortMappingDescription",
        "NewLeaseDuration",
    ]
    assert CALLS[0].soap_action == f'"{IP_1}#AddPortMapping"'


@pytest.mark.parametrize("answer", [{}, {"NewExternalIPAddress": "198.51.100.7"}, Fault(718, "Conflict<>")])
def test_answers_both_ways(answer):
    body = upnp.encode_answer(CALLS[3], answer)
    assert upnp.decode_answer(CALLS[3], body) == answer
    whole = body.rstrip()
    for size in range(len(whole)):
        with pytest.raises(Malformed):
            upnp.decode_answer(CALLS[3], whole[:size])


def test_an_answer_to_another_call_is_refused():
    with pytest.raises(Malformed):
        upnp.decode_answer(CALLS[0], upnp.encode_answer(CALLS[3], {}))
    with pytest.raises(Malformed):
        upnp.decode_call(CALLS[0].soap_action, upnp.encode_call(CALLS[3]))


@pytest.mark.parametrize("code", ["", "x", "99999999", "-1", "\u0663"])
def test_a_fault_without_a_proper_code_is_one_all_the_same(code):
    body = upnp.encode_answer(CALLS[0], Fault(718, "no")).replace(b"718", code.encode())
    assert upnp.decode_answer(CALLS[0], body) == Fault(0, "no")


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "1e3", "\u0663", "9" * 5000])
def test_ports_that_are_none(text):
    with pytest.raises(Malformed):
        upnp.reserved_port({"NewReservedPort": text})


@pytest.mark.parametrize("text", ["", "x", "::1", "1.2.3"])
def test_addresses_that_are_none(text):
    with pytest.raises(Malformed):
        upnp.external_address({"NewExternalIPAddress": text})


def test_port_and_address_of_an_answer():
    assert upnp.reserved_port({"NewReservedPort": "4000"}) == 4000
    assert upnp.external_address({"NewExternalIPAddress": "198.51.100.7"}) == IPv4Address("198.51.100.7")


@given(NAMES, st.dictionaries(NAMES, TEXT, max_size=4))
def test_any_call_and_answer_survive(action, values):
    call = Call(IP_1, action, values)
    assert upnp.decode_call(call.soap_action, upnp.encode_call(call)) == call
    assert upnp.decode_answer(call, upnp.encode_answer(call, values)) == values


@given(st.binary(max_size=60), st.integers(0, 300))
def test_garbage_is_refused_or_read(garbage, place):
    body = upnp.encode_answer(CALLS[3], {"NewExternalIPAddress": "198.51.100.7"})
    try:
        upnp.decode_answer(CALLS[3], body[:place] + garbage + body[place:])
    except Malformed:
        return
