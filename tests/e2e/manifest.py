"""A manifest with one of each, and what must come of it; for any agent at a real server."""

import json
import sqlite3
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Self
from uuid import uuid4

from e2e.deployment import Deployment, wait_until


class App:
    """A web app on this machine that is well."""

    def __enter__(self) -> Self:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        self._http = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/"
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def equip(deployment: Deployment, app: App) -> None:
    """Let the agent of `dev` have scripts, an app and metadata, as a template would."""
    place = deployment.place
    common = {"cron": "", "log_path": "", "icon": "", "run_on_start": False, "run_on_stop": False}
    start = {"script": f"echo begins in $PWD with $GREETING; read line < {place}/go; echo ends", "run_on_start": True}
    stop = {"script": "echo good night", "run_on_stop": True}
    values: dict[str, Any] = {
        "environment": {"GREETING": "hello"},
        "scripts": [
            common | {"id": str(uuid4()), "log_source_id": str(uuid4()), "display_name": name, "timeout_seconds": 0}
            | {"start_blocks_login": name == "Set up"} | one
            for name, one in (("Set up", start), ("Tidy up", stop))
        ],
        "apps": [{
            "id": str(uuid4()), "slug": "web", "display_name": "Web", "url": app.url, "sharing_level": "owner",
            "healthcheck": {"url": app.url, "interval_seconds": 1, "threshold": 2},
        }],
        "metadata_items": [
            {"key": "word", "display_name": "Word", "script": "echo $GREETING", "interval_seconds": 1,
             "timeout_seconds": 1},
        ],
    }  # fmt: skip
    (place / "work").mkdir()
    with sqlite3.connect(place / "state" / "coder.db") as database:
        columns = ", ".join(f"{name} = ?" for name in values)
        database.execute(
            f"UPDATE workspace_agents SET directory = ?, {columns}",
            [str(place / "work"), *map(json.dumps, values.values())],
        )
    database.close()


def agent(deployment: Deployment) -> Any:
    """Return the agent of `dev` as the server shows it."""
    return deployment.json("show", "dev")["latest_build"]["resources"][0]["agents"][0]


def printed(deployment: Deployment) -> list[str]:
    return [f"{line['source']}: {line['output']}" for line in deployment.json("logs", "dev")]


def value_of(deployment: Deployment) -> str:
    """Read the stream of metadata until there is a value."""
    token = (deployment.place / "config" / "session").read_text().strip()
    request = urllib.request.Request(
        f"{deployment.url}/api/v2/workspaceagents/{agent(deployment)['id']}/watch-metadata",
        headers={"Coder-Session-Token": token},
    )
    with urllib.request.urlopen(request, timeout=30) as stream:
        for line in stream:
            if line.startswith(b"data: ") and (found := json.loads(line[6:])[0]["result"])["value"]:
                return found["value"]
    raise AssertionError("the stream ended")


def check_start(deployment: Deployment) -> None:
    """The agent runs: its start script blocks logins until it ends, its app and metadata are looked after."""
    place = deployment.place
    wait_until("the start", lambda: agent(deployment)["lifecycle_state"] == "starting")
    wait_until("output", lambda: printed(deployment))
    ssh = deployment.begin("ssh", "dev", "echo in $PWD with $GREETING")
    line = ssh.stderr.readline()
    while "begins" not in line:
        line = ssh.stderr.readline()
        assert line, "the session came before the script had ended"
    (place / "go").write_text("\n")
    out, err = ssh.communicate(timeout=30)
    assert ssh.returncode == 0, err
    assert out == f"in {place}/work with hello\n"
    assert "ends" in err
    assert agent(deployment)["lifecycle_state"] == "ready"
    wait_until("all output", lambda: len(printed(deployment)) >= 2)
    assert [line for line in printed(deployment) if line.startswith("main/Set up: ")] == [
        f"main/Set up: begins in {place}/work with hello",
        "main/Set up: ends",
    ]
    wait_until("the app", lambda: agent(deployment)["apps"][0]["health"] == "healthy")
    assert value_of(deployment).strip() == "hello"
    run = wait_until("the run", lambda: agent(deployment)["scripts"][0].get("last_run"))
    assert (run["stage"], run["status"], run["exit_code"]) == ("start", "ok", 0)


def check_stop(deployment: Deployment) -> None:
    """The agent was stopped: its stop script has run, and it said that it is off."""
    assert "main/Tidy up: good night" in printed(deployment)
    assert agent(deployment)["lifecycle_state"] == "off"
