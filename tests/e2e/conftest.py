import pytest

from e2e.deployment import Deployment, sign_in, wait_until


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A deployment with the workspace `dev`, whose agent is connected."""
    made = Deployment(tmp_path_factory.mktemp("workspace"))
    try:
        made.start_server()
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(made.place / "token"))
        made.start_agent()
        wait_until("the agent", lambda: made.agent_status() == "connected")
        yield made
    finally:
        made.close()
