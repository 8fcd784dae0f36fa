import shutil
import subprocess

import pytest
from fakes.server import workspace
from hypothesis import given
from hypothesis import strategies as st

from coder.cli import sshconfig
from coder.errors import Malformed

SERVER = sshconfig.Server(prefix="coder.", suffix="coder", options={})
SSH_ROUTE = "GET /api/v2/deployment/ssh"
ANSWER = {"hostname_prefix": "coder.", "hostname_suffix": "coder", "ssh_config_options": {}}
BINARY = "/usr/bin/coder"


def section(server=SERVER, *, binary=BINARY, config_dir="/users/u/.config/coderv2", **options):
    return sshconfig.make(sshconfig.Options(**options), server, binary=binary, config_dir=config_dir)


def settings(section):
    """The lines that mean something to OpenSSH."""
    return [line for line in section.splitlines() if line and not line.startswith("#")]


def test_a_plain_section_is_what_other_programs_expect():
    assert section().splitlines()[0] == "# ------------START-CODER-----------"
    assert section().splitlines()[-1] == "# ------------END-CODER------------"
    options = ["\tConnectTimeout=0", "\tStrictHostKeyChecking=no", "\tUserKnownHostsFile=/dev/null", "\tLogLevel ERROR"]
    proxy = "\tProxyCommand /usr/bin/coder --global-config /users/u/.config/coderv2 ssh --stdio"
    assert settings(section()) == [
        "Host coder.*",
        *options,
        f"{proxy} --ssh-host-prefix coder. %h",
        "Host *.coder",
        *options,
        'Match host *.coder !exec "/usr/bin/coder connect exists %h"',
        f"{proxy} --hostname-suffix coder %h",
    ]
    assert "# :" not in section()


FULL = {
    "wait": "yes",
    "prefix": "box-",
    "suffix": "ws.example",
    "disable_autostart": True,
    "ssh_options": ("ForwardAgent=yes", "SendEnv LANG"),
    "headers": ("X-A=b c",),
    "header_command": "print-headers 5% '$HOME'",
}


def test_options_are_written_down_and_lead_to_flags():
    made = section(**FULL)
    assert [line for line in made.splitlines() if line.startswith("# :")] == [
        "# :wait=yes",
        "# :ssh-host-prefix=box-",
        "# :hostname-suffix=ws.example",
        "# :disable-autostart=true",
        "# :ssh-option=ForwardAgent=yes",
        "# :ssh-option=SendEnv LANG",
        "# :header=X-A=b c",
        "# :header-command=print-headers 5% '$HOME'",
    ]
    assert (
        '\tProxyCommand /usr/bin/coder --global-config /users/u/.config/coderv2 --header "X-A=b c"'
        " --header-command \"print-headers 5%% '\\$HOME'\" ssh --stdio --wait=yes --disable-autostart=true"
        " --hostname-suffix ws.example %h"
    ) in settings(made)


def test_files_for_tls_go_along_and_are_read_back():
    files = (("ca-file", "/etc/our ca.pem"), ("client-tls-cert-file", "/etc/me.pem"))
    made = section(files=files)
    assert '--ca-file "/etc/our ca.pem" --client-tls-cert-file "/etc/me.pem" ssh --stdio' in made
    assert sshconfig.read(made) == sshconfig.Options(files=files)


def test_a_section_is_read_back_as_it_was_made():
    assert sshconfig.read(section(**FULL)) == sshconfig.Options(**FULL)
    assert sshconfig.read(section()) == sshconfig.Options()


def test_earlier_options_win_and_an_empty_one_leaves_a_key_out():
    lines = sshconfig.host_options(
        ["ForwardAgent=yes", "LogLevel=", "SendEnv A", "SendEnv B"], {"ForwardAgent": "no", "Port": "22"}
    )
    assert lines == [
        "ForwardAgent=yes",
        "SendEnv A",
        "SendEnv B",
        "Port 22",
        "ConnectTimeout=0",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
    ]


TEXTS = st.lists(st.text(alphabet="ab #\t\r-é\udc80").map(lambda line: line + "\n")).map("".join)


@given(before=TEXTS, after=TEXTS)
def test_putting_in_replacing_and_taking_out_touch_nothing_else(before, after):
    first = sshconfig.put(before, section())
    assert sshconfig.put(first, section()) == first
    assert sshconfig.take_out(first) == before
    around = before + section() + after
    assert sshconfig.put(around, section(wait="no")) == before + section(wait="no") + after


@pytest.mark.parametrize(
    "text",
    [
        sshconfig.START,
        sshconfig.END,
        f"{sshconfig.END}\n{sshconfig.START}\n",
        f"{sshconfig.START}\n{sshconfig.START}\n{sshconfig.END}\n",
        section() + section(),
    ],
)
def test_a_broken_section_is_refused(text):
    for change in (lambda: sshconfig.put(text, section()), lambda: sshconfig.take_out(text)):
        with pytest.raises(Malformed, match="broken"):
            change()


def test_windows_line_ends_are_no_reason_to_miss_a_section():
    text = "Host a\r\n" + section().replace("\n", "\r\n") + "Host b\r\n"
    assert sshconfig.put(text, section()) == "Host a\r\n" + section() + "Host b\r\n"


@pytest.mark.parametrize(
    "name", ["a b", "a\nProxyCommand x", "*", "a*", "!a", "-a", 'a"', "a;b", "$(x)", "a,b", "%h", "é"]
)
def test_names_of_the_server_cannot_become_patterns_or_lines(name):
    for answer in ({"hostname_prefix": name}, {"hostname_suffix": name}):
        with pytest.raises(Malformed, match="host name"):
            sshconfig.server_values(ANSWER | answer)
    with pytest.raises(Malformed, match="host name"):
        section(suffix=name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ProxyCommand", "evil"),
        ("proxycommand", "evil"),
        ("LocalCommand", "evil"),
        ("KnownHostsCommand", "evil"),
        ("Include", "/tmp/x"),
        ("ForwardAgent", "yes"),
        ("RemoteCommand", "evil"),
        ("LocalForward", "80 x:80"),
        ("SendEnv", "*"),
        ("IdentityFile", "~/.ssh/id"),
        ("UserKnownHostsFile", "~/.ssh/known_hosts"),
        ("SetEnv", "LD_PRELOAD=/tmp/x"),
        ("SetEnv", "CODER_A=1 LD_PRELOAD=/tmp/x"),
        ("User", "%h"),
        ("User", "a b"),
        ("Port", "22 # x"),
        ("Match", "exec evil"),
        ("Host", "*"),
        ("User", "a\nProxyCommand evil"),
        ("User", "a\rProxyCommand evil"),
        ("User\tx", "a"),
        ("User=x\nProxyCommand", "a"),
        ("", "a"),
        ("User ProxyCommand", "a"),
        ("User", "\x1b[31m"),
    ],
)
def test_options_of_the_server_cannot_run_programs_or_reach_other_hosts(key, value):
    server = sshconfig.server_values(ANSWER | {"ssh_config_options": {key: value, "Compression": "yes"}})
    assert server.options == {"Compression": "yes"}
    assert server.refused == (f"{key}={value}",)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ServerAliveInterval", "30"),
        ("serveralivecountmax", "3"),
        ("ConnectTimeout", "5"),
        ("LogLevel", ""),
        ("StrictHostKeyChecking", "accept-new"),
        ("UserKnownHostsFile", "/dev/null"),
        ("SetEnv", "CODER_REGION=eu-1"),
        ("User", "dev"),
    ],
)
def test_harmless_options_of_the_server_are_taken(key, value):
    server = sshconfig.server_values(ANSWER | {"ssh_config_options": {key: value}})
    assert server.options == {key: value}
    assert server.refused == ()


def test_options_the_server_may_not_set_are_named_and_left_out(coder, signed_in, file):
    wanted = {"ProxyCommand": "evil\x1b[2K\nx", "ForwardAgent": "yes", "Compression": "yes"}
    signed_in.answers[SSH_ROUTE] = (200, ANSWER | {"ssh_config_options": wanted})
    run = configure(coder, file, "--yes")
    assert run.code == 0, run.err
    [warning] = run.err.splitlines()
    assert "ProxyCommand=evil?[2K?x, ForwardAgent=yes" in warning
    assert "--ssh-option" in warning
    text = file.read_text()
    assert "\tCompression yes" in text
    assert "evil" not in text
    assert "ForwardAgent" not in text


@pytest.mark.parametrize("option", ["Host=*", "match all", "ForwardAgent", "=x", "A=b\nProxyCommand x", ""])
def test_options_of_the_user_stay_in_their_block(option):
    with pytest.raises(Malformed):
        section(ssh_options=(option,))


@pytest.mark.parametrize("path", ["/a\nb/coder", "/a\x1b/coder"])
def test_paths_that_cannot_be_written_are_refused(path):
    for place in ({"binary": path}, {"config_dir": path}):
        with pytest.raises(Malformed, match="cannot be written"):
            section(**place)


def resolved(tmp_path, text, host):
    """What OpenSSH makes of a configuration."""
    if shutil.which("ssh") is None:
        pytest.skip("there is no OpenSSH client")
    file = tmp_path / "ssh-config"
    file.write_text(text)
    done = subprocess.run(["ssh", "-F", file, "-G", host], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


@pytest.mark.parametrize("directory", ["plain", "with space", "per%cent", "dollar$HOME"])
def test_openssh_takes_the_section_and_its_proxy_command_gets_the_words_meant(tmp_path, directory):
    binary = tmp_path / directory / "coder"
    binary.parent.mkdir()
    binary.write_text('#!/bin/sh\n[ "$1" = connect ] && exit 1\nfor word; do echo "$word"; done\n')
    binary.chmod(0o755)
    server = sshconfig.Server(prefix="coder.", suffix="coder", options={"SetEnv": "A=b"})
    text = section(server, binary=str(binary), config_dir=str(binary.parent), ssh_options=("ForwardAgent=yes",))
    for host, flag in (("dev.coder", ["--hostname-suffix", "coder"]), ("coder.dev", ["--ssh-host-prefix", "coder."])):
        found = resolved(tmp_path, text, host)
        assert found["forwardagent"] == "yes"
        assert found["stricthostkeychecking"] in {"no", "false"}
        assert found["setenv"] == "A=b"
        command = found["proxycommand"].replace("%h", host).replace("%%", "%")
        said = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True).stdout
        assert said.splitlines() == ["--global-config", str(binary.parent), "ssh", "--stdio", *flag, host]
    assert "proxycommand" not in resolved(tmp_path, text, "elsewhere.example")


@pytest.fixture
def file(signed_in, tmp_path, monkeypatch):
    signed_in.answers[SSH_ROUTE] = (200, ANSWER)
    signed_in.answers["GET /api/v2/workspaces"] = (200, {"workspaces": [workspace()], "count": 1})
    monkeypatch.setenv("CODER_SSH_CONFIG_BINARY_PATH", BINARY)
    monkeypatch.setenv("CODER_SSH_CONFIG_FILE", str(tmp_path / "ssh" / "config"))
    return tmp_path / "ssh" / "config"


def configure(coder, file, *arguments, **options):
    return coder("config-ssh", "--ssh-config-file", str(file), "--coder-binary-path", BINARY, *arguments, **options)


def test_the_first_time_makes_a_private_file_and_the_second_changes_nothing(coder, file):
    run = configure(coder, file, "--yes")
    assert run.code == 0, run.err
    assert run.out.splitlines() == [
        f'Updated "{file}"',
        "You should now be able to ssh into your workspace.",
        "For example, try running:",
        "",
        "\t$ ssh dev.coder",
    ]
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    text = file.read_bytes()
    again = configure(coder, file, "--yes")
    assert again.out.splitlines()[0] == "No changes to make."
    assert file.read_bytes() == text
    assert [path.name for path in file.parent.iterdir()] == ["config"]


def test_a_link_and_a_mode_stay_and_other_bytes_too(coder, file, tmp_path):
    real = tmp_path / "dotfiles" / "ssh"
    real.parent.mkdir()
    real.write_bytes(b"Host other\n\tUser \xff\n")
    real.chmod(0o640)
    file.parent.mkdir()
    file.symlink_to(real)
    assert configure(coder, file, "--yes").code == 0
    assert file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert real.read_bytes().startswith(b"Host other\n\tUser \xff\n\n# ---")
    assert configure(coder, file, "--remove", "--yes").code == 0
    assert real.read_bytes() == b"Host other\n\tUser \xff\n"


def test_a_dry_run_shows_the_difference_and_writes_nothing(coder, file):
    run = configure(coder, file, "--dry-run")
    assert run.code == 0
    assert "+Host *.coder" in run.out.splitlines()
    assert not file.exists()


def test_a_broken_section_is_one_line_and_the_file_stays(coder, file):
    file.parent.mkdir()
    file.write_text(sshconfig.START + "\n")
    run = configure(coder, file, "--yes")
    assert run.code == 2
    [line] = run.err.splitlines()
    assert str(file) in line
    assert file.read_text() == sshconfig.START + "\n"


def test_without_anyone_to_agree_nothing_is_written(coder, file):
    run = configure(coder, file)
    assert run.code == 1
    assert "--yes" in run.err
    assert not file.exists()


def test_a_person_may_decline(coder, file):
    run = coder("--force-tty", "config-ssh", "--ssh-config-file", str(file), "--coder-binary-path", BINARY, stdin="n\n")
    assert run.code == 1
    assert not file.exists()


def test_options_of_the_last_time_can_be_used_again(coder, file):
    configure(coder, file, "--yes", "-o", "ForwardAgent=yes", "--hostname-suffix", "box")
    text = file.read_text()
    assert "\tForwardAgent=yes" in text
    assert configure(coder, file, "--yes", "--use-previous-options").out.startswith("No changes")
    assert file.read_text() == text
    assert configure(coder, file, "--yes").code == 0
    assert "ForwardAgent" not in file.read_text()


def test_a_server_that_smuggles_a_command_changes_no_file(coder, file, signed_in):
    signed_in.answers[SSH_ROUTE] = (200, ANSWER | {"hostname_suffix": "x\n\tProxyCommand evil"})
    run = configure(coder, file, "--yes")
    assert run.code == 2
    assert not file.exists()


@pytest.mark.parametrize(
    ("names", "agree"),
    [
        ({"hostname_suffix": ".com"}, ["--hostname-suffix", "com"]),
        ({"hostname_prefix": "git"}, ["--ssh-host-prefix", "git"]),
    ],
)
def test_a_server_gets_no_hosts_of_others_unless_somebody_agrees(coder, file, signed_in, names, agree):
    signed_in.answers[SSH_ROUTE] = (200, ANSWER | names)
    run = configure(coder, file, "--yes")
    assert run.code == 1
    assert not file.exists()
    assert " ".join(agree) in run.err
    asked = ("config-ssh", "--ssh-config-file", str(file), "--coder-binary-path", BINARY)
    declined = coder("--force-tty", *asked, stdin="n\n")
    assert "goes through it. Agree only if" in declined.err
    assert configure(coder, file, "--yes", *agree).code == 0
    assert configure(coder, file, "--yes").code == 0, "what was agreed to once is not asked again"


@pytest.mark.parametrize(
    ("addresses", "code"), [(["fd60:627a:a42b::7"], 0), (["fd7a:115c:a1e0::7"], 1), (["2001:db8::1"], 1), ([], 1)]
)
def test_a_name_is_the_systems_own_tunnel_only_in_its_prefix(coder, monkeypatch, addresses, code):
    def answer(host, port, *_):
        assert host == "dev.coder"
        return [(10, 1, 6, "", (address, port, 0, 0)) for address in addresses]

    monkeypatch.setattr("socket.getaddrinfo", answer)
    assert coder("connect", "exists", "dev.coder").code == code


@pytest.mark.skipif(shutil.which("ssh") is None, reason="asks OpenSSH")
@pytest.mark.parametrize(
    ("option", "words"),
    [("Port=abc", "Bad port 'abc'"), ("Nonsense=1", "nonsense"), ("StrictHostKeyChecking=banana", "banana")],
)
def test_values_that_openssh_refuses(coder, signed_in, tmp_path, option, words):
    file = tmp_path / "ssh"
    run = coder("config-ssh", "-y", "--ssh-config-file", str(file), "-o", option)
    assert run.code == 2
    assert run.err.startswith("error: --ssh-option: ")
    assert words in run.err
    assert not file.exists()
