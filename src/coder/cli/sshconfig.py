"""Our section of an OpenSSH configuration: found, read, made, put in and taken out. Pure; texts in, texts out.

Other programs read the section too: its first and last line, and the lines `# :key=value` that hold the options it was
made with.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coder.errors import Malformed

START = "# ------------START-CODER-----------"
END = "# ------------END-CODER------------"

DEFAULTS = ("ConnectTimeout=0", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel ERROR")
"""The tunnel is the authentication: host keys prove nothing more, and a workspace's may change with its machine."""

_START_LINE = re.compile(rf"^{re.escape(START)}[ \t\r]*$", re.MULTILINE)
_END_LINE = re.compile(rf"^{re.escape(END)}[ \t\r]*$\n?", re.MULTILINE)
_OPTION = re.compile(r"([A-Za-z][A-Za-z0-9]*)(?:[ \t]*=[ \t]*|[ \t]+)(.*)")
_NAME = re.compile(r"[A-Za-z0-9._-]*")
_PLAIN = re.compile(r"[A-Za-z0-9_@+:,./%-]+")

_BLOCK_STARTERS = frozenset({"host", "match"})
"""They would end our block: what follows would hold for other hosts."""
_OF_SERVER = {
    **dict.fromkeys(
        (
            "addressfamily", "compression", "connectionattempts", "connecttimeout", "loglevel", "port", "requesttty",
            "serveralivecountmax", "serveraliveinterval", "stricthostkeychecking", "tcpkeepalive", "user",
        ),
        re.compile(r"[A-Za-z0-9_.-]*"),
    ),
    "userknownhostsfile": re.compile(r"(?:/dev/null)?"),
    "setenv": re.compile(r"CODER_[A-Z0-9_]*=[A-Za-z0-9_@+:,./-]*"),
}  # fmt: skip
"""What a server may set, and to what: nothing that runs, loads, forwards or reads something on this machine. OpenSSH
gets new options of that kind, so only those known to be harmless pass; the user may set any."""


FILES = ("ca-file", "client-tls-cert-file", "client-tls-key-file")
"""Global flags that name files for TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a section was asked to be, as its `# :key=value` lines say it. None and empty: the default."""

    wait: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    disable_autostart: bool = False
    ssh_options: tuple[str, ...] = ()
    headers: tuple[str, ...] = field(default=(), repr=False)
    header_command: str | None = field(default=None, repr=False)
    files: tuple[tuple[str, str], ...] = ()
    """Of `FILES`, those that were given, with their absolute paths."""

    def pairs(self) -> list[tuple[str, str]]:
        """List what differs from the defaults, in the order of the section."""
        single = [
            ("wait", self.wait),
            ("ssh-host-prefix", self.prefix),
            ("hostname-suffix", self.suffix),
            ("disable-autostart", "true" if self.disable_autostart else None),
        ]
        return [
            *((key, value) for key, value in single if value is not None),
            *(("ssh-option", value) for value in self.ssh_options),
            *(("header", value) for value in self.headers),
            *([("header-command", self.header_command)] if self.header_command else []),
            *self.files,
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the server wants its clients' sections to hold. Made by `server_values`."""

    prefix: str
    suffix: str
    options: Mapping[str, str]
    refused: tuple[str, ...] = ()
    """What it wants and may not have, as `key=value`."""


def server_values(answer: Mapping[str, object]) -> Server:
    """Take what a server says; nothing in it may reach beyond our hosts or run a program here.

    Raises:
        Malformed: its host names try to, or its options are none.

    """
    options = answer.get("ssh_config_options") or {}
    if not isinstance(options, Mapping):
        raise Malformed("these are no options", where="ssh_config_options")
    wanted = {str(key): str(value) for key, value in options.items()}
    return Server(
        prefix=host_part(str(answer.get("hostname_prefix") or "")),
        suffix=host_part(str(answer.get("hostname_suffix") or "")),
        options={key: value for key, value in wanted.items() if _harmless(key, value)},
        refused=tuple(f"{key[:64]}={value[:64]}" for key, value in wanted.items() if not _harmless(key, value)),
    )


def _harmless(key: str, value: str) -> bool:
    allowed = _OF_SERVER.get(key.lower())
    return allowed is not None and allowed.fullmatch(value) is not None


def host_part(text: str) -> str:
    """Return a prefix or suffix that is part of a host name, and no pattern, space or second line.

    Raises:
        Malformed: it is something else.

    """
    if not _NAME.fullmatch(text) or text.startswith("-"):
        raise Malformed(f"{text[:64]!r} cannot be part of a host name", remedy="Use letters, digits, '.', '-' and '_'.")
    return text


USUAL = Server(prefix="coder.", suffix="coder", options={})


def reached(server: Server, options: Options, section: str) -> list[tuple[str, str, str]]:
    """List the names of hosts that the server alone wants to have: pattern, and the flag and value that agree to it.

    A server that chooses `git` or `com` would have every key and password meant for other hosts of that name. Its usual
    names harm nobody; those in `section`, the one there is, were agreed to when it was made.
    """
    suffix = server.suffix.removeprefix(".")
    asked = []
    if options.prefix is None and server.prefix not in {"", USUAL.prefix}:
        asked.append((f"{server.prefix}*", "--ssh-host-prefix", server.prefix))
    if options.suffix is None and suffix not in {"", USUAL.suffix}:
        asked.append((f"*.{suffix}", "--hostname-suffix", suffix))
    return [each for each in asked if f"Host {each[0]}" not in section.splitlines()]


def split_option(text: str) -> tuple[str, str]:
    """Return key, in small letters, and value of `key=value` or `key value`.

    Raises:
        Malformed: it is neither, or would change more than its own hosts.

    """
    found = _OPTION.fullmatch(text.strip(" \t"))
    if found is None or not text.isprintable():
        raise Malformed(f"{text[:64]!r} is no SSH option", remedy="Write key=value, or key= to leave one out.")
    key = found[1].lower()
    if key in _BLOCK_STARTERS:
        raise Malformed(f"the SSH option {found[1]} begins a block of its own", remedy="Add it outside of the section.")
    return key, found[2].strip()


def locate(text: str) -> tuple[int, int] | None:
    """Return where our section begins and ends in a configuration; None when there is none.

    Raises:
        Malformed: there is half of one, or more than one.

    """
    starts = [found.start() for found in _START_LINE.finditer(text)]
    ends = [found.end() for found in _END_LINE.finditer(text)]
    if not starts and not ends:
        return None
    if len(starts) != 1 or len(ends) != 1 or ends[0] <= starts[0]:
        raise Malformed(
            f"its section for workspaces is broken: {len(starts)} line(s) {START!r}, {len(ends)} line(s) {END!r}",
            remedy="Remove what is left of the section, then try again.",
        )
    return starts[0], ends[0]


def read(section: str) -> Options:
    """Read the options a section was made with; lines of other versions are passed over."""
    single: dict[str, str] = {}
    lists: dict[str, list[str]] = {"ssh-option": [], "header": []}
    for line in section.splitlines():
        key, equals, value = line.strip().removeprefix("# :").partition("=")
        if not line.startswith("# :") or not equals:
            continue
        if key in lists:
            lists[key].append(value)
        else:
            single[key] = value
    return Options(
        wait=single.get("wait"),
        prefix=single.get("ssh-host-prefix"),
        suffix=single.get("hostname-suffix"),
        disable_autostart=single.get("disable-autostart") == "true",
        ssh_options=tuple(lists["ssh-option"]),
        headers=tuple(lists["header"]),
        header_command=single.get("header-command"),
        files=tuple((key, single[key]) for key in FILES if key in single),
    )


def put(text: str, section: str) -> str:
    """Replace the section of a configuration where it stands, or add it at the end. Raises Malformed."""
    place = locate(text)
    if place is not None:
        return text[: place[0]] + section + text[place[1] :]
    if text and not text.endswith("\n"):
        text += "\n"
    return f"{text}\n{section}" if text else section


def take_out(text: str) -> str:
    """Remove the section, and the empty line that was put before it. Raises Malformed."""
    place = locate(text)
    if place is None:
        return text
    before = text[: place[0]]
    return (before[:-1] if before.endswith("\n\n") or before == "\n" else before) + text[place[1] :]


def make(options: Options, server: Server, *, binary: str, config_dir: str, proxy: bool = True) -> str:
    """Make the section. `proxy` says whether it holds the command that connects.

    Raises:
        Malformed: an option is none, or a path cannot be written in such a file.

    """
    prefix = host_part(server.prefix if options.prefix is None else options.prefix)
    suffix = host_part(server.suffix if options.suffix is None else options.suffix).removeprefix(".")
    if not prefix and not suffix:
        raise Malformed("neither a prefix nor a suffix of host names is set", remedy="Pass --hostname-suffix coder.")
    program = " ".join([_word(binary), "--global-config", _word(config_dir), *_root_flags(options)])
    stdio = " ".join(["ssh --stdio", *_ssh_flags(options)])
    block = [f"\t{line}" for line in host_options(options.ssh_options, server.options)]
    lines = [START, *_head(options)]
    if prefix:
        lines += [f"Host {prefix}*", *block]
        lines += [f"\tProxyCommand {program} {stdio} --ssh-host-prefix {prefix} %h"] if proxy else []
    if suffix:
        lines += [*([""] if prefix else []), f"Host *.{suffix}", *block]
        if proxy:
            lines += ["", f'Match host *.{suffix} !exec "{_exec_word(binary)} connect exists %h"']
            lines += [f"\tProxyCommand {program} {stdio} --hostname-suffix {suffix} %h"]
    return "\n".join([*lines, END, ""])


def host_options(given: Sequence[str], wanted: Mapping[str, str]) -> list[str]:
    """Merge the user's options, the server's and the defaults; an earlier one wins, `key=` leaves the key out.

    Raises:
        Malformed: one of the user's is no option.

    """
    taken: set[str] = set()
    lines: list[str] = []
    for level in (given, [f"{key} {value}" for key, value in sorted(wanted.items())], DEFAULTS):
        split = [(*split_option(text), text) for text in level]
        lines += [text.strip() for key, value, text in split if value and key not in taken]
        taken |= {key for key, _, _ in split}
    return lines


def _head(options: Options) -> list[str]:
    lines = [
        "# 'coder config-ssh' writes everything between these two lines anew each time.",
        "# What you change here is lost; what you write elsewhere in this file is not touched.",
        "#",
    ]
    pairs = options.pairs()
    if pairs:
        if any(not value.isprintable() for _, value in pairs):
            raise Malformed("an option holds a line break or another control character")
        lines += ["# Options it was last called with:", *(f"# :{key}={value}" for key, value in pairs), "#"]
    return lines


def _root_flags(options: Options) -> list[str]:
    flags = [f"--header {_quoted(value)}" for value in options.headers]
    flags += [f"--{key} {_quoted(value)}" for key, value in options.files]
    return [*flags, f"--header-command {_quoted(options.header_command)}"] if options.header_command else flags


def _ssh_flags(options: Options) -> list[str]:
    if options.wait not in {None, "yes", "no", "auto"}:
        raise Malformed(f"{options.wait!r} is not yes, no or auto", where="wait")
    flags = [f"--wait={options.wait}"] if options.wait else []
    return [*flags, "--disable-autostart=true"] if options.disable_autostart else flags


def _word(text: str) -> str:
    """Write one word of a command that a shell reads after OpenSSH has replaced its `%` sequences."""
    return text.replace("%", "%%") if _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    if not text.isprintable():
        raise Malformed(f"{text!r} cannot be written in an SSH configuration", remedy="Choose a path without it.")
    escaped = re.sub(r'([\\"$`])', r"\\\1", text)
    return '"' + escaped.replace("%", "%%") + '"'


def _exec_word(text: str) -> str:
    """Write a path inside the quotes of `Match exec`, where OpenSSH knows no way to write a quote."""
    if _PLAIN.fullmatch(text):
        return text.replace("%", "%%")
    if not text.isprintable() or any(sign in text for sign in "\"'\\"):
        raise Malformed(f"the path {text!r} cannot be written in an SSH configuration", remedy="Choose a plainer one.")
    return "'" + text.replace("%", "%%") + "'"
