"""`coder derpmap`."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

GOOD = {
    "Regions": {
        "900": {
            "RegionID": 900,
            "RegionCode": "own",
            "RegionName": "Our own",
            "Nodes": [
                {"Name": "a", "RegionID": 900, "HostName": "relay.example.com", "IPv6": "none"},
                {"Name": "s", "RegionID": 900, "HostName": "192.0.2.1", "STUNOnly": True, "STUNPort": 19302},
            ],
        }
    }
}


@pytest.fixture
def document(tmp_path):
    def write(value):
        path = tmp_path / "map.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1))
        return str(path)

    return write


def test_a_right_map_ends_well(coder, document):
    outcome = coder("derpmap", "validate", document("// ours\n" + json.dumps(GOOD)))
    assert (outcome.code, outcome.out) == (0, "")
    assert "right" in outcome.err


def test_every_fault_is_a_line_with_its_place_and_ends_badly(coder, document):
    wrong = json.loads(json.dumps(GOOD))
    wrong["Regions"]["900"]["Nodes"][0] |= {"DERPPort": 0.5, "HostName": "http://x"}
    path = document(wrong)
    outcome = coder("derpmap", "validate", path)
    assert outcome.code == 1
    assert outcome.out.splitlines() == [
        f"{path}:11:6: Regions.900.Nodes[0].HostName: write only the host: no scheme, no path",
        f"{path}:13:6: Regions.900.Nodes[0].DERPPort: expected a whole number",
    ]
    assert "2 faults" in outcome.err
    as_json = json.loads(coder("derpmap", "validate", path, "-o", "json").out)
    assert [(fault["line"], fault["severity"]) for fault in as_json] == [(11, "error"), (13, "error")]


def test_warnings_alone_end_well(coder, document):
    outcome = coder("derpmap", "validate", document({**GOOD, "Comment": "x"}))
    assert outcome.code == 0
    assert "warning: Comment: this key means nothing here" in outcome.out


def test_standard_input_is_read_too(coder):
    assert coder("derpmap", "validate", "-", stdin="{").code == 1


@pytest.mark.parametrize(("content", "said"), [(b"\xff\xfe{", "no text"), (b" " * (4 << 20) + b"{}", "larger")])
def test_what_is_no_document_is_refused(coder, tmp_path, content, said):
    path = tmp_path / "map.json"
    path.write_bytes(content)
    outcome = coder("derpmap", "validate", str(path))
    assert outcome.code == 2
    assert said in outcome.err


def test_a_missing_file_is_named(coder):
    outcome = coder("derpmap", "validate", "/nonexistent.json")
    assert outcome.code == 1
    assert "/nonexistent.json" in outcome.err


@pytest.fixture
def web():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/map"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(GOOD).encode() if found else b"")

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_url_is_fetched_and_a_refusal_told(coder, web):
    assert coder("derpmap", "validate", f"{web}/map").code == 0
    outcome = coder("derpmap", "validate", f"{web}/other")
    assert outcome.code == 1
    assert "it answered 404" in outcome.err
    assert coder("derpmap", "validate", "http://127.0.0.1:1/").code == 1


def test_show_lists_regions_and_nodes(coder, document):
    outcome = coder("derpmap", "show", document(GOOD))
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["REGION", "CODE", "NAME", "NODE", "HOST", "RELAY", "STUN", "NOTES"]
    assert lines[1].split() == ["900", "own", "Our", "own", "a", "relay.example.com", "443", "3478", "no", "IPv6"]
    assert lines[2].split() == ["900", "own", "Our", "own", "s", "192.0.2.1", "-", "19302"]
    found = json.loads(coder("derpmap", "show", document(GOOD), "-o", "json").out)
    assert found["Regions"]["900"]["Nodes"][0] == GOOD["Regions"]["900"]["Nodes"][0]


def test_show_asks_the_server_when_nothing_is_named(coder, signed_in):
    signed_in.answers["GET /api/v2/workspaceagents/connection"] = (200, {"derp_map": GOOD})
    assert "relay.example.com" in coder("derpmap", "show").out
