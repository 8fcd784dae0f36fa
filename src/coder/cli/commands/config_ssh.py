"""`coder config-ssh`."""

import contextlib
import difflib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from coder.cli import output, sshconfig
from coder.cli.context import Globals
from coder.cli.options import AssignedFlags
from coder.errors import CoderError, Malformed


class Listed(click.ParamType[str]):
    """Text; several in one environment variable are separated by commas."""

    name = "text"

    def split_envvar_value(self, rv: str) -> list[str]:
        """Split the variable's text at commas."""
        return [part.strip() for part in rv.split(",") if part.strip()]


@click.command("config-ssh", cls=AssignedFlags)
@click.option(
    "--ssh-config-file", envvar="CODER_SSH_CONFIG_FILE", default="~/.ssh/config", show_default=True, metavar="PATH",
    help="The file to change.",
)  # fmt: skip
@click.option(
    "--coder-binary-path", envvar="CODER_SSH_CONFIG_BINARY_PATH", metavar="PATH",
    help="The program that connects.  [default: this one]",
)  # fmt: skip
@click.option(
    "-o", "--ssh-option", "ssh_options", envvar="CODER_SSH_CONFIG_OPTS", multiple=True, type=Listed(),
    metavar="KEY=VALUE", help="Option for all workspaces, such as ForwardAgent=yes; repeatable; KEY= leaves one out.",
)  # fmt: skip
@click.option("-n", "--dry-run", envvar="CODER_SSH_DRY_RUN", is_flag=True, help="Show the changes and make none.")
@click.option(
    "--use-previous-options", envvar="CODER_SSH_USE_PREVIOUS_OPTIONS", is_flag=True,
    help="Take the options of the last time.",
)  # fmt: skip
@click.option(
    "--ssh-host-prefix", envvar="CODER_CONFIGSSH_SSH_HOST_PREFIX", metavar="TEXT",
    help="What host names begin with.  [default: as the server says]",
)  # fmt: skip
@click.option(
    "--hostname-suffix", envvar="CODER_CONFIGSSH_HOSTNAME_SUFFIX", metavar="TEXT",
    help="What host names end with.  [default: as the server says]",
)  # fmt: skip
@click.option(
    "--wait", envvar="CODER_CONFIGSSH_WAIT", type=click.Choice(["yes", "no", "auto"]), default="auto",
    show_default=True, help="Whether to wait for the start-up script.",
)  # fmt: skip
@click.option(
    "--disable-autostart", envvar="CODER_CONFIGSSH_DISABLE_AUTOSTART", is_flag=True,
    help="Do not start a stopped workspace.",
)  # fmt: skip
@click.option("--force-unix-filepaths", envvar="CODER_CONFIGSSH_UNIX_FILEPATHS", is_flag=True, hidden=True)
@click.option("--skip-proxy-command", is_flag=True, hidden=True)
@click.option("--remove", is_flag=True, help="Take the section out again.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@click.pass_obj
def command(flags: Globals, /, **given: Any) -> int:
    """Let `ssh dev.coder`, scp, rsync, git and editors reach your workspaces.

    Writes a section of its own into the SSH configuration and touches nothing else there. A host is
    `workspace.coder`, `agent.workspace.owner.coder`, or `coder.workspace`.
    """
    path = Path(given["ssh_config_file"]).expanduser()
    old = _read(path)
    try:
        place = sshconfig.locate(old)
        if given["remove"]:
            return _change(flags, path, old, sshconfig.take_out(old), given)
        previous = sshconfig.read(old[slice(*place)]) if place is not None else None
        options = _options(flags, previous, given)
        with flags.api() as api:
            server = sshconfig.server_values(api.ssh_config())
            _warn(server.refused)
            _agree(sshconfig.reached(server, options, old[slice(*place)] if place else ""), given)
            example = None if given["dry_run"] else _example(api)
        section = sshconfig.make(
            options,
            server,
            binary=given["coder_binary_path"] or _this_program(),
            config_dir=os.path.abspath(flags.config.path),  # noqa: PTH100 - a link in it may be meant
            proxy=not given["skip_proxy_command"],
        )
        done = _change(flags, path, old, sshconfig.put(old, section), given)
    except Malformed as error:
        raise Malformed(str(error), where=error.where or str(path), remedy=error.remedy) from None
    suffix = sshconfig.host_part(server.suffix if options.suffix is None else options.suffix).removeprefix(".")
    if done == 0 and example:
        prefix = server.prefix if options.prefix is None else options.prefix
        output.out("You should now be able to ssh into your workspace.")
        output.out(f"For example, try running:\n\n\t$ ssh {f'{example}.{suffix}' if suffix else prefix + example}")
    return done


def _files(flags: Globals) -> tuple[tuple[str, str], ...]:
    """Return the files for TLS that were given, as ssh finds them from any directory."""
    cert, key = flags.outbound.identity or (None, None)
    given = zip(sshconfig.FILES, (flags.outbound.ca_file, cert, key), strict=True)
    return tuple((name, str(Path(file).absolute())) for name, file in given if file)


def _options(flags: Globals, previous: sshconfig.Options | None, given: Any) -> sshconfig.Options:
    """Resolve this call's options against those of the last time."""
    if given["use_previous_options"] and previous is not None:
        return previous
    options = sshconfig.Options(
        wait=None if given["wait"] == "auto" else given["wait"],
        prefix=given["ssh_host_prefix"],
        suffix=given["hostname_suffix"],
        disable_autostart=given["disable_autostart"],
        ssh_options=tuple(given["ssh_options"]),
        headers=tuple(f"{key}={value}" for key, value in flags.given_headers.items()),
        header_command=flags.header_command,
        files=_files(flags),
    )
    _check(options.ssh_options)
    if previous in (None, options) or given["yes"] or given["dry_run"] or not flags.interactive:
        return options
    output.note("The options differ from those of the last time:")
    before = [f"{key}={value}" for key, value in previous.pairs()]
    after = [f"{key}={value}" for key, value in options.pairs()]
    _show(before, after, "last time", "now", to_stderr=True)
    return options if click.confirm("Use the new ones?", default=True, err=True) else previous


def _check(ssh_options: Sequence[str]) -> None:
    """Refuse options that are none, and values that this machine's OpenSSH would refuse at each use."""
    from coder.cli.reverse import complaint_of

    pairs = [sshconfig.split_option(option) for option in ssh_options]
    client = shutil.which("ssh")
    words = [word for key, value in pairs if value for word in ("-o", f"{key}={value}")]
    if client is None or not words:
        return
    # All at once: IgnoreUnknown among them speaks for the others.
    if complaint := complaint_of([client, "-F", "none", "-G", *words, "workspace"]):
        raise Malformed(
            complaint.rpartition("line 0")[2].lstrip(": "), where="--ssh-option", remedy="See man 5 ssh_config."
        )


def _change(flags: Globals, path: Path, old: str, new: str, given: Any) -> int:
    """Show and make the change, as far as the flags and the user allow."""
    if new == old:
        output.out("No changes to make.")
        return 0
    if given["dry_run"]:
        output.note(f"Nothing is written. These changes would be made to {path}:")
        _show(old.splitlines(), new.splitlines(), str(path), str(path))
        return 0
    if not given["yes"]:
        if not flags.interactive:
            raise CoderError(f"{path} would be changed and nobody is here to agree", remedy="Pass --yes or --dry-run.")
        _show(old.splitlines(), new.splitlines(), str(path), str(path), to_stderr=True)
        if not click.confirm(f"Make these changes to {path}?", default=True, err=True):
            return 1
    _write(path, new)
    output.out(f'Updated "{path}"')
    return 0


def _show(old: list[str], new: list[str], before: str, after: str, *, to_stderr: bool = False) -> None:
    for line in difflib.unified_diff(old, new, before, after, lineterm=""):
        (output.note if to_stderr else output.out)(line)


def _warn(refused: Sequence[str]) -> None:
    """Say which of the server's options are left out, and how to have them."""
    if refused:
        output.note(
            f"warning: left out what the server may not set here: {output.printable(', '.join(refused))}."
            " If you trust it, set it yourself: --ssh-option KEY=VALUE."
        )


def _agree(wanted: Sequence[tuple[str, str, str]], given: Any) -> None:
    """Say which hosts the server wants to have; without a question that follows, the user must have named them."""
    if not wanted:
        return
    asks = f"the server asks that ssh to {' and '.join(pattern for pattern, _, _ in wanted)} goes through it"
    if given["yes"]:
        agree = " ".join(f"{flag} {value}" for _, flag, value in wanted)
        raise CoderError(asks, remedy=f"If no other hosts have such names, agree with {agree}.")
    output.note(f"warning: {asks}. Agree only if no other hosts have such names.")


def _example(api: Any) -> str | None:
    """Name one of the user's workspaces."""
    with contextlib.suppress(CoderError, IndexError):
        return sshconfig.host_part(str(api.workspaces("owner:me")[0]["name"]))
    return None


def _this_program() -> str:
    """Return the path at which this program can be started again."""
    found = shutil.which(sys.argv[0])
    if found is not None and Path(found).name.startswith("coder"):
        return os.path.abspath(found)  # noqa: PTH100 - a link, as package managers make, outlives what it points to
    beside = Path(sys.executable).with_name("coder")
    if beside.exists():
        return str(beside)
    raise CoderError("this program's own path is not known", remedy="Pass it with --coder-binary-path.")


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, keeping its mode and the links that lead to it. Raises OSError."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = target.stat().st_mode & 0o7777 if target.exists() else 0o600
    number, draft = tempfile.mkstemp(prefix=".config-", dir=target.parent)
    try:
        with open(number, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:  # noqa: PTH123
            os.fchmod(number, mode)
            file.write(text)
            file.flush()
            os.fsync(number)
        Path(draft).replace(target)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
