"""Settings: the table, the four sources, and what is refused."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder import config
from coder.config import OPTIONS, ConfigError, Settings, load


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "coder.yaml"
    file.write_text(text)
    return str(file)


def test_the_table_names_each_option_once():
    for attribute in ("path", "flag", "env", "yaml", "name"):
        values = [getattr(option, attribute) for option in OPTIONS]
        assert len(values) == len(set(values))
    assert all(option.env.startswith("CODER_") and option.help.endswith(".") for option in OPTIONS)


def test_without_sources_everything_is_default():
    assert load(environ={}) == Settings()


def test_each_source_wins_over_the_one_before(tmp_path: Path):
    file = write(
        tmp_path, "networking:\n  http:\n    httpAddress: 127.0.0.1:1\n  accessURL: http://file\nstateDir: /file"
    )
    environ = {"CODER_HTTP_ADDRESS": "127.0.0.1:2", "CODER_ACCESS_URL": "http://env", "CODER_CONFIG_PATH": file}
    settings = load(flags={"http_address": "127.0.0.1:3", "log_level": None}, environ=environ)
    assert settings.http.address == "127.0.0.1:3"
    assert settings.http.access_url == "http://env"
    assert settings.state_dir == "/file"
    assert settings.log.level == "info"


def test_the_config_flag_wins_over_its_variable(tmp_path: Path):
    file = write(tmp_path, "stateDir: /flag")
    assert load(path=file, environ={"CODER_CONFIG_PATH": "/nowhere"}).state_dir == "/flag"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("derp_server_enable", "false", False),
        ("derp_server_region_id", "12", 12),
        ("session_duration", "1h30m", timedelta(minutes=90)),
        ("derp_server_stun_addresses", "a:1, b:2,", ("a:1", "b:2")),
        ("ssh_config_options", "ForwardAgent=yes,Port = 22", {"ForwardAgent": "yes", "Port": "22"}),
        ("derp_server_stun_port", "-1", -1),
    ],
)
def test_types(name: str, text: str, value: object):
    option = next(option for option in OPTIONS if option.name == name)
    assert config.read(load(flags={name: text}, environ={}), option) == value
    assert config.read(load(environ={option.env: text}), option) == value


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"derp_server_enable": "maybe"}, "--derp-server-enable: expected true or false"),
        ({"derp_server_region_id": "x"}, "whole number"),
        ({"derp_server_region_id": "0"}, "1 to 65535"),
        ({"derp_server_stun_port": "65535"}, "65534"),
        ({"session_duration": "1 day"}, "duration"),
        ({"session_duration": "0s"}, "above zero"),
        ({"ssh_config_options": "x"}, "key=value"),
        ({"log_level": "loud"}, "one of debug"),
        ({"http_address": "3000"}, "host:port"),
        ({"http_address": "::1:3000"}, "host:port"),
        ({"http_address": "a:70000"}, "host:port"),
        ({"access_url": "coder.example.com"}, "https://"),
        ({"proxy_trusted_origins": "10.0.0.1/8"}, "--proxy-trusted-origins: expected a network, not '10.0.0.1/8'. Did"),
        ({"proxy_trusted_origins": "proxy"}, "such as 10.0.0.0/8"),
        ({"access_url": "https://example.com/coder"}, "without a path"),
        ({"oidc_issuer_url": "id.example.com", "oidc_client_id": "coder"}, "--oidc-issuer-url"),
        ({"oidc_client_id": "coder"}, "give --oidc-issuer-url"),
        ({"oidc_email_domain": "ann@example.com"}, "such as example.com"),
        ({"derp_server_relay_url": "relay.example.com"}, "--derp-server-relay-url"),
        ({"derp_server_region_code": " "}, "expected letters"),
        ({"agent_fallback_troubleshooting_url": "javascript:alert(1)"}, "--agent-fallback-troubleshooting-url"),
        ({"ssh_hostname_prefix": "a b"}, "--ssh-hostname-prefix"),
        ({"workspace_hostname_suffix": ".coder"}, "without a dot in front"),
        ({"strict_transport_security": "-1"}, "0 or more"),
        ({"strict_transport_security_options": "all"}, "includeSubDomains"),
    ],
)
def test_what_is_refused_names_its_place(flags: dict[str, str], words: str):
    with pytest.raises(ConfigError, match="--") as refused:
        load(flags=flags, environ={})
    assert words in str(refused.value)
    assert refused.value.exit_code == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("networking:\n  derp:\n    enabled: true", "Did you mean 'networking.derp.enable'?"),
        ("netwrking:\n  accessURL: http://x", "Did you mean 'networking.accessURL'?"),
        ("accessURL: http://x", "Did you mean 'networking.accessURL'?"),
        ("zzz: 1", "unknown setting 'zzz'."),
        ("stateDir: [a]", "stateDir: expected a single value"),
        ("- a", "mapping"),
        ("networking: [1]", "networking holds settings by name"),
        ("networking: {tls: true}", "networking.tls holds settings by name"),
        ("a: [", "not YAML"),
        ("networking: {http: {httpAddress: {a: 1}}}", "networking.http.httpAddress"),
    ],
)
def test_a_bad_file_gets_one_line(tmp_path: Path, text: str, words: str):
    with pytest.raises(ConfigError) as refused:
        load(path=write(tmp_path, text), environ={})
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_gets_one_line():
    with pytest.raises(ConfigError, match="/nowhere/at/all"):
        load(path="/nowhere/at/all", environ={})


def test_what_is_written_reads_back_the_same(tmp_path: Path):
    flags = {
        "ssh_config_options": "A=b",
        "session_duration": "90s",
        "derp_server_stun_addresses": "x:1",
        "state_dir": "/s",
    }
    settings = load(flags=flags, environ={})
    assert load(path=write(tmp_path, config.to_yaml(settings)), environ={}) == settings
    assert load(path=write(tmp_path, config.to_yaml(Settings())), environ={}) == Settings()


def test_empty_values_and_files_change_nothing(tmp_path: Path):
    assert (
        load(path=write(tmp_path, "networking:\n  http:\n    httpAddress:\n"), environ={"CODER_STATE_DIR": ""})
        == Settings()
    )
    assert load(path=write(tmp_path, ""), environ={}) == Settings()


@given(st.integers(min_value=1, max_value=10**9))
def test_durations_read_back(milliseconds: int):
    value = timedelta(milliseconds=milliseconds)
    assert abs(config.parse_duration(config.format_duration(value)) - value) < timedelta(milliseconds=1)


def test_a_retention_of_nothing_leaves_it_to_the_numbers_kept():
    kept = load(flags={"audit_logs_retention": "0", "connection_logs_retention": "90d"}, environ={}).retention
    assert kept.audit_logs == timedelta()
    assert kept.connection_logs == timedelta(days=90)


@pytest.mark.parametrize("text", ["", "h", "5", "5x", "1h 2m", "-1h", "1h-"])
def test_what_is_no_duration(text: str):
    with pytest.raises(ValueError, match="duration"):
        config.parse_duration(text)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:3000", ("127.0.0.1", 3000)), (":80", ("0.0.0.0", 80)), ("[::1]:0", ("::1", 0))],
)
def test_addresses(address: str, parts: tuple[str, int]):
    assert config.split_address(address) == parts


def test_the_state_directory_follows_the_desktop_rules(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert Settings().state_path == Path("/xdg/coder")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/a")
    assert Settings().state_path == Path("/home/a/.local/state/coder")
    assert Settings(state_dir="~/x").state_path == Path("/home/a/x")


def test_the_page_of_the_settings_is_up_to_date(monkeypatch: pytest.MonkeyPatch):
    root = Path(__file__).parents[3]
    monkeypatch.syspath_prepend(str(root / "scripts"))
    import docs_config

    assert docs_config.PAGE.read_text() == docs_config.page(), "run scripts/docs_config.py"
