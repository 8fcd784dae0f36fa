"""Values that are well-formed but cannot work: each is refused at the start, with what would."""

import re
from datetime import timedelta
from urllib.parse import urlsplit

from coder.config.options import ConfigError
from coder.config.tree import OPTIONS, Settings, TlsSettings, read
from coder.config.values import split_address

_HOST_PART = re.compile(r"[A-Za-z0-9_.-]*")


def check(settings: Settings) -> None:
    """Raise ConfigError for the first setting that cannot work."""
    if settings.http.address or not settings.tls.enable:
        split_address(settings.http.address)
    if settings.prometheus.enable:
        split_address(settings.prometheus.address, "prometheus-address")
    _check_tls(settings.tls)
    _check_urls(settings)
    _check_numbers(settings)
    _check_networks(settings.http.proxy_trusted_origins)
    _check_names(settings)
    _check_oidc(settings)


def _check_tls(tls: TlsSettings) -> None:
    if tls.enable:
        split_address(tls.address, "tls-address")
        if not tls.cert_files or len(tls.cert_files) != len(tls.key_files):
            raise ConfigError(
                "--tls-enable needs a --tls-cert-file and its --tls-key-file, both PEM; a chain goes into the same "
                "file. For several certificates give both as often, in the same order."
            )
    if tls.strict_transport_security < 0:
        raise ConfigError("--strict-transport-security: expected a number of seconds, 0 or more.")
    for option in tls.strict_transport_security_options:
        if option not in {"includeSubDomains", "preload"}:
            raise ConfigError(
                f"--strict-transport-security-options: {option!r} is neither includeSubDomains nor preload."
            )


def _check_urls(settings: Settings) -> None:
    access_url = settings.http.access_url
    if access_url and not _is_web(access_url):
        raise ConfigError(f"--access-url: expected a URL such as https://coder.example.com, not {access_url!r}.")
    if urlsplit(access_url).path.strip("/"):
        raise ConfigError(f"--access-url: the server needs a host of its own, without a path, not {access_url!r}.")
    others = {
        "oidc-issuer-url": settings.oidc.issuer_url,
        "derp-server-relay-url": settings.derp.relay_url,
        "agent-fallback-troubleshooting-url": settings.client.troubleshooting_url,
    }
    for flag, url in others.items():
        if url and not _is_web(url):
            raise ConfigError(f"--{flag}: expected a URL that starts with https://, not {url!r}.")


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _check_numbers(settings: Settings) -> None:
    if not -1 <= settings.derp.stun_port < 65535:
        raise ConfigError("--derp-server-stun-port: expected a port from 1 to 65534, 0 for any, or -1 for none.")
    if not 1 <= settings.derp.region_id <= 65535:
        raise ConfigError("--derp-server-region-id: expected a number from 1 to 65535.")
    for option in OPTIONS:
        if option.kind is timedelta and option.path[0] != "retention" and read(settings, option) <= timedelta(0):
            raise ConfigError(f"--{option.flag}: expected a duration above zero.")


def _check_networks(networks: tuple[str, ...]) -> None:
    if not networks:
        return
    from ipaddress import ip_interface, ip_network  # noqa: PLC0415  rarely needed

    for text in networks:
        try:
            ip_network(text)
        except ValueError:
            try:
                meant = f", not {text!r}. Did you mean {ip_interface(text).network}?"
            except ValueError:
                meant = f" such as 10.0.0.0/8, not {text!r}."
            raise ConfigError(f"--proxy-trusted-origins: expected a network{meant}") from None


def _check_names(settings: Settings) -> None:
    code = settings.derp.region_code
    if not code or not _HOST_PART.fullmatch(code):
        raise ConfigError(f"--derp-server-region-code: expected letters, digits and hyphens, not {code!r}.")
    prefix, suffix = settings.client.ssh_hostname_prefix, settings.client.hostname_suffix
    if not _HOST_PART.fullmatch(prefix):
        raise ConfigError(f"--ssh-hostname-prefix: expected letters, digits, dots and hyphens, not {prefix!r}.")
    if suffix.startswith(".") or not _HOST_PART.fullmatch(suffix):
        raise ConfigError(f"--workspace-hostname-suffix: expected a name without a dot in front, not {suffix!r}.")


def _check_oidc(settings: Settings) -> None:
    oidc = settings.oidc
    if oidc.client_id and not oidc.issuer_url:
        raise ConfigError("--oidc-client-id is of no use without the provider: give --oidc-issuer-url.")
    for domain in oidc.email_domain:
        if "@" in domain.removeprefix("@"):
            raise ConfigError(f"--oidc-email-domain: expected a domain such as example.com, not {domain!r}.")
