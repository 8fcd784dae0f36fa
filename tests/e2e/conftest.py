import pytest

from e2e.deployment import running


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A deployment with the workspace `dev`, whose agent is connected."""
    with running(tmp_path_factory.mktemp("workspace")) as made:
        yield made
