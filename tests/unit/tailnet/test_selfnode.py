"""The node record, field by field."""

from fakes.coordination import node, uid

from coder.ids import DiscoKey, NodeKey


def test_a_node_record_carries_everything_in_its_wire_form():
    record = node(uid(7), agent=True, home=999)
    assert record.key == b"np" + bytes([7] * 32)
    assert NodeKey.from_wire(record.key) == "nodekey:" + "07" * 32
    assert DiscoKey.parse(record.disco).raw == bytes([8] * 32)
    assert record.preferred_derp == 999
    assert dict(record.derp_latency) == {"999-v4": 0.01}
    assert list(record.addresses) == list(record.allowed_ips)
    assert all(address.endswith("/128") for address in record.addresses)
    assert list(record.endpoints) == ["192.0.2.1:41641"]
    assert record.as_of.seconds == 1893456000
    assert dict(record.derp_forced_websocket) == {}
