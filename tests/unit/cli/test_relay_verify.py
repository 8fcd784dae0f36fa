"""Asking a URL whether relay clients are known."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from coder.cli import relay_verify
from coder.cli.relay_verify import ASK_AGAIN, MOST_KEYS, Verifier, ask_url

KEY = "nodekey:" + "ab" * 32


class Relay:
    def __init__(self, logins=()):
        self.logins = list(logins)
        self.calls = []
        self.drained = threading.Event()

    def next_unannounced(self, patience):
        if self.logins:
            return self.logins.pop(0)
        self.drained.set()
        return None

    def announce(self, keys):
        self.calls.append(("announce", keys))

    def set_health(self, problem):
        self.calls.append(("health", problem))

    def withdraw(self, keys):
        self.calls.append(("withdraw", keys))


def answer(value):
    def ask(key, source):
        if isinstance(value, Exception):
            raise value
        return value

    return ask


@pytest.mark.parametrize(
    ("value", "fail_open", "stays"),
    [
        (True, False, True),
        (False, True, False),
        (OSError("down"), False, False),
        (OSError("down"), True, True),
        (ValueError("no JSON"), False, False),
    ],
)
def test_a_client_stays_if_the_answer_is_yes(value, fail_open, stays):
    relay = Relay()
    Verifier(relay, answer(value), fail_open=fail_open).judge(KEY, "192.0.2.1:5")
    assert [call for call in relay.calls if call[0] != "health"] == ([("announce", [KEY])] if stays else [])


def test_the_address_is_passed_on_without_port_and_brackets():
    seen = []
    verifier = Verifier(Relay(), lambda key, source: bool(seen.append((key, source))), fail_open=False)
    verifier.judge(KEY, "[2001:db8::1]:5")
    assert seen == [(KEY, "2001:db8::1")]


def test_answers_are_asked_for_again_after_a_while():
    relay, now = Relay(), [0.0]
    verifier = Verifier(relay, answer(True), fail_open=False, now=lambda: now[0])
    verifier.judge(KEY, "192.0.2.1:5")
    now[0] = ASK_AGAIN - 1
    verifier.forget_old()
    assert relay.calls == [("announce", [KEY])]
    now[0] = ASK_AGAIN
    verifier.forget_old()
    assert relay.calls[1:] == [("withdraw", [KEY])]


def test_no_more_than_so_many_are_remembered(monkeypatch):
    assert MOST_KEYS == 100_000
    monkeypatch.setattr(relay_verify, "MOST_KEYS", 2)
    relay = Relay()
    verifier = Verifier(relay, answer(True), fail_open=False)
    for name in "abc":
        verifier.judge(name, "192.0.2.1:5")
    verifier.forget_old()
    assert relay.calls[3:] == [("withdraw", ["a"])]


def test_logins_are_judged_until_told_to_stop():
    relay, stop = Relay([(KEY, "192.0.2.1:5"), ("other", "192.0.2.1:6")]), threading.Event()
    verifier = Verifier(relay, answer(True), fail_open=False)
    serving = threading.Thread(target=verifier.run, args=(stop,))
    serving.start()
    assert relay.drained.wait(10)
    stop.set()
    serving.join(10)
    assert sorted(relay.calls) == [("announce", [KEY]), ("announce", ["other"])]


@pytest.fixture
def url():
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = {
                "192.0.2.1": json.dumps({"Allow": question["NodePublic"] == KEY}),
                "192.0.2.2": "no JSON",
                "192.0.2.3": '{"Allow": "true"}',
                "192.0.2.4": " " * 5000 + '{"Allow": true}',
            }[question["Source"]]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_question_and_its_answers(url):
    ask = ask_url(url)
    assert ask(KEY, "192.0.2.1")
    assert not ask("other", "192.0.2.1")
    assert not ask(KEY, "192.0.2.3")
    for source in ("192.0.2.2", "192.0.2.4"):
        with pytest.raises(ValueError, match=r"."):
            ask(KEY, source)
    with pytest.raises(OSError, match=r"."):
        ask_url("http://127.0.0.1:1/")(KEY, "192.0.2.1")


def test_clients_are_told_once_that_nobody_answers_and_once_that_it_is_over():
    answers = iter([OSError, ValueError, False, OSError])

    def ask(_key, _source):
        answer = next(answers)
        if answer is not False:
            raise answer
        return answer

    relay = Relay()
    verifier = Verifier(relay, ask, fail_open=False)
    for _ in range(4):
        verifier.judge(KEY, "192.0.2.1:1")
    assert relay.calls == [("health", relay_verify.NO_ANSWER), ("health", ""), ("health", relay_verify.NO_ANSWER)]


def test_where_no_answer_is_a_yes_there_is_no_problem():
    def ask(_key, _source):
        raise OSError

    relay = Relay()
    Verifier(relay, ask, fail_open=True).judge(KEY, "192.0.2.1:1")
    assert relay.calls == [("announce", [KEY])]
