"""Scripts, environment, metadata and apps of a workspace, with real processes."""

import os

import pytest

from e2e import manifest
from e2e.deployment import Deployment, running, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def equipped(tmp_path_factory):
    with manifest.App() as app, running(tmp_path_factory.mktemp("equipped"), agent=False) as made:
        manifest.equip(made, app)
        os.mkfifo(made.place / "go")
        yield made


def test_an_agent_does_what_its_manifest_says(equipped: Deployment):
    equipped.start("agent", "agent", "--script-data-dir", str(equipped.place / "scripts"), **identity(equipped))
    manifest.check_start(equipped)
    second = equipped.start("second", "agent", **identity(equipped))
    wait_until("the refusal", lambda: "Another agent is connected" in equipped.log("second"))
    assert second.poll() is None, "it may be the only one later"
    assert "refused_second" in equipped.log("server")
    assert equipped.stop("second") == 0
    assert equipped.stop("agent") == 0
    manifest.check_stop(equipped)
    token = (equipped.place / "token").read_text().strip()
    assert token not in equipped.log("agent") + equipped.log("server") + equipped.log("second")


def identity(deployment: Deployment) -> dict[str, str]:
    return {"CODER_AGENT_URL": deployment.url, "CODER_AGENT_TOKEN_FILE": str(deployment.place / "token")}
