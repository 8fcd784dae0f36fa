import shutil

import pytest

from e2e.deployment import CODER, running


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A deployment with the workspace `dev`, whose agent is connected."""
    with running(tmp_path_factory.mktemp("workspace")) as made:
        yield made


@pytest.fixture(scope="module")
def config(workspace):
    """What `config-ssh` has written."""
    if shutil.which("ssh") is None:
        pytest.skip("there is no OpenSSH client")
    file = workspace.place / "ssh" / "config"
    workspace.ok("config-ssh", "--yes", "--ssh-config-file", str(file), "--coder-binary-path", str(CODER))
    return file
