import os

import pytest
from click.testing import CliRunner, Result

from coder.cli import main as program


@pytest.fixture
def coder(tmp_path, monkeypatch, capfd):
    """Run the program as a shell would; the result has exit_code, stdout and stderr."""
    for name in [name for name in os.environ if name.startswith("CODER_")]:
        monkeypatch.delenv(name)

    def run(*args: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
        def invoke(argv: list[str]) -> int:
            return program.run(argv)

        return _isolated(invoke, ["--global-config", str(tmp_path / "config"), *args], stdin, env or {})

    return run


def _isolated(invoke, argv, stdin, env) -> Result:
    runner = CliRunner()
    with runner.isolation(input=stdin, env=env) as streams:
        code = invoke(argv)
        out, err = streams[0].getvalue(), streams[1].getvalue()
    return Result(runner, out, err, out + err, None, code, None)
