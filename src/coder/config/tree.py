# ruff: noqa: RUF009  `setting` returns a field, as `dataclasses.field` does
"""The tree of settings. Its fields are the table of options."""

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints

from coder.config.options import Option, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Where the server listens and how it is reached."""

    address: str = setting(
        "127.0.0.1:3000",
        flag="http-address",
        yaml="networking.http.httpAddress",
        about="Address to listen on, host:port. Port 0 takes any free port.",
    )
    access_url: str = setting(
        "",
        flag="access-url",
        yaml="networking.accessURL",
        about="URL under which clients and agents reach this server. Default: made from the listening address.",
    )
    redirect_to_access_url: bool = setting(
        False,
        flag="redirect-to-access-url",
        yaml="networking.redirectToAccessURL",
        about="Send requests for any other host or scheme on to the access URL.",
    )
    proxy_trusted_origins: tuple[str, ...] = setting(
        (),
        flag="proxy-trusted-origins",
        yaml="networking.proxyTrustedOrigins",
        about="Networks (CIDR) of reverse proxies whose forwarded-for headers are believed.",
    )
    secure_auth_cookie: bool = setting(
        False,
        flag="secure-auth-cookie",
        yaml="networking.secureAuthCookie",
        about="Send the session cookie over HTTPS only. Always so where the access URL is https.",
    )
    samesite_auth_cookie: str = setting(
        "lax",
        flag="samesite-auth-cookie",
        yaml="networking.sameSiteAuthCookie",
        choices=("lax", "none"),
        about="SameSite attribute of the session cookie.",
    )
    api_rate_limit: int = setting(
        512,
        flag="api-rate-limit",
        yaml="networking.http.apiRateLimit",
        about="Requests to the API a minute for each user and each agent, and for each address that is neither."
        " 0 or less: no limit.",
    )
    browser_only: bool = setting(
        False,
        flag="browser-only",
        yaml="browserOnly",
        about="Grant tunnels to nobody: workspaces are reached through the dashboard's terminal and apps only.",
    )
    disable_rate_limits: bool = setting(
        False,
        flag="dangerous-disable-rate-limits",
        yaml="networking.http.disableRateLimits",
        about="Limit neither requests nor logins. Passwords can then be tried without end.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """HTTPS without another server in front."""

    enable: bool = setting(False, flag="tls-enable", yaml="networking.tls.enable", about="Serve HTTPS too.")
    address: str = setting(
        "127.0.0.1:3443",
        flag="tls-address",
        yaml="networking.tls.address",
        about="Address to serve HTTPS on, host:port.",
    )
    cert_files: tuple[str, ...] = setting(
        (),
        flag="tls-cert-file",
        yaml="networking.tls.certFiles",
        about="PEM file of the certificate, followed by those of its chain. Read again when it changes. Of several "
        "each name gets the one that has it, else the first.",
    )
    key_files: tuple[str, ...] = setting(
        (),
        flag="tls-key-file",
        yaml="networking.tls.keyFiles",
        about="PEM file of its private key, in the order of the certificates. Read again when it changes.",
    )
    min_version: str = setting(
        "tls12",
        flag="tls-min-version",
        yaml="networking.tls.minVersion",
        choices=("tls12", "tls13"),
        about="Oldest version of TLS that is spoken.",
    )
    redirect_http: bool = setting(
        True,
        flag="tls-redirect-http-to-https",
        yaml="networking.tls.redirectHTTP",
        about="Send requests without TLS on to the access URL, where TLS is on and that URL is https.",
    )
    strict_transport_security: int = setting(
        0,
        flag="strict-transport-security",
        yaml="networking.tls.strictTransportSecurity",
        about="Seconds for which browsers are told to come over HTTPS only. 0: they are not told.",
    )
    strict_transport_security_options: tuple[str, ...] = setting(
        (),
        flag="strict-transport-security-options",
        yaml="networking.tls.strictTransportSecurityOptions",
        about="What to add to that: includeSubDomains, preload.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundSettings:
    """How the server reaches others, such as the place of a DERP map."""

    ca_file: str = setting(
        "",
        flag="ca-file",
        yaml="networking.outbound.caFile",
        about="PEM file of certificate authorities to trust beside the system's.",
    )
    cert_file: str = setting(
        "",
        flag="client-tls-cert-file",
        yaml="networking.outbound.certFile",
        about="PEM file of our certificate for servers that ask who we are.",
    )
    key_file: str = setting(
        "",
        flag="client-tls-key-file",
        yaml="networking.outbound.keyFile",
        about="PEM file of its private key, if that is not in the same file.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Logins and tokens."""

    duration: timedelta = setting(
        timedelta(hours=24),
        flag="session-duration",
        yaml="networking.http.sessionDuration",
        about="How long a login lasts without use.",
    )
    disable_refresh: bool = setting(
        False,
        flag="disable-session-expiry-refresh",
        yaml="networking.http.disableSessionExpiryRefresh",
        about="End a login at its first expiry, however much it is used.",
    )
    default_token_lifetime: timedelta = setting(
        timedelta(days=7),
        flag="default-token-lifetime",
        yaml="defaultTokenLifetime",
        about="Lifetime of a token made without one.",
    )
    max_token_lifetime: timedelta = setting(
        timedelta(hours=876_600),
        flag="max-token-lifetime",
        yaml="networking.http.maxTokenLifetime",
        about="Longest lifetime a user may give a token.",
    )
    disable_password_auth: bool = setting(
        False,
        flag="disable-password-auth",
        yaml="networking.http.disablePasswordAuth",
        about="Refuse logins with a password, except by owners.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """Logins through a provider (OpenID Connect)."""

    issuer_url: str = setting(
        "",
        flag="oidc-issuer-url",
        yaml="oidc.issuerURL",
        about="Issuer URL of the provider through which users sign in too. Its callback is"
        " <access URL>/api/v2/users/oidc/callback.",
    )
    client_id: str = setting(
        "", flag="oidc-client-id", yaml="oidc.clientID", about="Name of this deployment at the provider."
    )
    client_secret_file: str = setting(
        "",
        flag="oidc-client-secret-file",
        yaml="oidc.clientSecretFile",
        about="File with the client's secret. None: the provider takes the proof of possession (PKCE) alone.",
    )
    scopes: tuple[str, ...] = setting(
        ("openid", "profile", "email"),
        flag="oidc-scopes",
        yaml="oidc.scopes",
        about="Scopes to ask for.",
    )
    email_domain: tuple[str, ...] = setting(
        (),
        flag="oidc-email-domain",
        yaml="oidc.emailDomain",
        about="Domains of the addresses that may sign in, compared whole. Default: all.",
    )
    allow_signups: bool = setting(
        True,
        flag="oidc-allow-signups",
        yaml="oidc.allowSignups",
        about="Make an account for whoever the provider lets in and has none.",
    )
    ignore_email_verified: bool = setting(
        False,
        flag="oidc-ignore-email-verified",
        yaml="oidc.ignoreEmailVerified",
        about="Believe addresses that the provider does not call verified. Only where nobody can choose theirs.",
    )
    username_field: str = setting(
        "preferred_username",
        flag="oidc-username-field",
        yaml="oidc.usernameField",
        about="Claim that the name of a new user is made of.",
    )
    email_field: str = setting(
        "email", flag="oidc-email-field", yaml="oidc.emailField", about="Claim that holds the address."
    )
    sign_in_text: str = setting(
        "OpenID Connect", flag="oidc-sign-in-text", yaml="oidc.signInText", about="Text of the button."
    )
    icon_url: str = setting("", flag="oidc-icon-url", yaml="oidc.iconURL", about="Picture on the button.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DerpSettings:
    """Relays, STUN and the DERP map."""

    enable: bool = setting(
        True, flag="derp-server-enable", yaml="networking.derp.enable", about="Run the embedded relay."
    )
    region_id: int = setting(
        999,
        flag="derp-server-region-id",
        yaml="networking.derp.regionID",
        about="Region id of the embedded relay, 1 to 65535.",
    )
    region_code: str = setting(
        "coder",
        flag="derp-server-region-code",
        yaml="networking.derp.regionCode",
        about="Region code of the embedded relay.",
    )
    region_name: str = setting(
        "Coder Embedded Relay",
        flag="derp-server-region-name",
        yaml="networking.derp.regionName",
        about="Region name of the embedded relay, shown to users.",
    )
    stun_addresses: tuple[str, ...] = setting(
        (),
        flag="derp-server-stun-addresses",
        yaml="networking.derp.stunAddresses",
        about="Further STUN servers, host:port. The word `disable` anywhere empties the list.",
    )
    stun_port: int = setting(
        3478,
        flag="derp-server-stun-port",
        yaml="networking.derp.stunPort",
        about="UDP port of the embedded STUN server; the port after it serves the second observation that tells NAT "
        "kinds apart. 0 takes any two free ports, -1 turns it off.",
    )
    relay_url: str = setting(
        "",
        flag="derp-server-relay-url",
        yaml="networking.derp.relayURL",
        about="URL under which other replicas reach the relay of this one. A server on its own has no use for it.",
    )
    mesh_key_file: str = setting(
        "",
        flag="derp-server-mesh-key-file",
        yaml="networking.derp.meshKeyFile",
        about="File with the secret that the relays of this region share.",
    )
    mesh_with: tuple[str, ...] = setting(
        (),
        flag="derp-server-mesh-with",
        yaml="networking.derp.meshWith",
        about="URL of another server, or of a `coder relay`, whose relay belongs to this region. A server that finds "
        "itself in the list ignores that entry.",
    )
    mesh_ca_file: str = setting(
        "",
        flag="derp-server-mesh-ca-file",
        yaml="networking.derp.meshCAFile",
        about="PEM file of the only authorities for those relays' certificates. Else --ca-file and the system's.",
    )
    mesh_cert_name: str = setting(
        "",
        flag="derp-server-mesh-cert-name",
        yaml="networking.derp.meshCertName",
        about="Name, or sha256-raw:<hex>, that those certificates must carry instead of their host.",
    )
    verify_clients: bool = setting(
        False,
        flag="derp-verify-clients",
        yaml="networking.derp.verifyClients",
        about="Only nodes that the coordinator knows may use the embedded relay; others get 32 packets a second and "
        "are cut off after 10 seconds. Nodes that are announced to another server cannot use this relay then.",
    )
    block_direct: bool = setting(
        False,
        flag="block-direct-connections",
        env="CODER_BLOCK_DIRECT",
        yaml="networking.derp.blockDirect",
        about="Relayed connections only: no STUN, no endpoints.",
    )
    force_websockets: bool = setting(
        False,
        flag="derp-force-websockets",
        yaml="networking.derp.forceWebSockets",
        about="Clients and agents reach relays over WebSocket, for proxies that refuse other upgrades.",
    )
    config_url: str = setting(
        "",
        flag="derp-config-url",
        yaml="networking.derp.url",
        about="URL of a DERP map to build on. Fetched again every five minutes; clients and agents follow. The last "
        "usable one is kept in the state directory.",
    )
    config_url_link_local: bool = setting(
        False,
        flag="derp-config-url-allow-link-local",
        yaml="networking.derp.urlAllowLinkLocal",
        about="Fetch the map from a link-local address too. Else none of them is asked, since clouds tell a machine's "
        "secrets there.",
    )
    config_path: str = setting(
        "",
        flag="derp-config-path",
        yaml="networking.derp.configPath",
        about="File with a DERP map to build on. Read again when it changes; clients and agents follow.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AppsSettings:
    """Web apps and ports of workspaces."""

    wildcard_access_url: str = setting(
        "",
        flag="wildcard-access-url",
        yaml="networking.wildcardAccessURL",
        about="Hosts of apps and ports: a * and a domain whose names all lead here, such as *.apps.example.com.",
    )
    disable_path_apps: bool = setting(
        True,
        flag="disable-path-apps",
        yaml="disablePathApps",
        about="Serve apps on hosts of their own only. A path app shares its origin with the dashboard: its pages can do"
        " there whatever the user may do.",
    )
    max_sharing_level: str = setting(
        "public",
        flag="max-app-sharing-level",
        yaml="networking.maxAppSharingLevel",
        choices=("owner", "organization", "authenticated", "public"),
        about="With whom apps and ports may be shared at most, whatever templates and users say.",
    )
    allow_path_app_sharing: bool = setting(
        False,
        flag="dangerous-allow-path-app-sharing",
        yaml="dangerous.allowPathAppSharing",
        about="Let path apps be shared. Their pages can act as whoever opens them.",
    )
    allow_path_app_owner_access: bool = setting(
        False,
        flag="dangerous-allow-path-app-site-owner-access",
        yaml="dangerous.allowPathAppSiteOwnerAccess",
        about="Let owners of the deployment open the path apps of others. Their pages can act as that owner.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What clients are told about SSH names and agents."""

    ssh_hostname_prefix: str = setting(
        "coder.",
        flag="ssh-hostname-prefix",
        yaml="client.sshHostnamePrefix",
        about="Prefix of workspace names in SSH configurations.",
    )
    hostname_suffix: str = setting(
        "coder",
        flag="workspace-hostname-suffix",
        yaml="client.workspaceHostnameSuffix",
        about="Suffix of workspace names in SSH configurations.",
    )
    ssh_config_options: dict[str, str] = setting(
        {},
        flag="ssh-config-options",
        yaml="client.sshConfigOptions",
        about="Options for the SSH configuration of clients, key=value.",
    )
    troubleshooting_url: str = setting(
        "",
        flag="agent-fallback-troubleshooting-url",
        yaml="agentFallbackTroubleshootingURL",
        about="Page users are pointed at when an agent does not connect.",
    )
    stats_interval: timedelta = setting(
        timedelta(seconds=30),
        flag="agent-stats-refresh-interval",
        yaml="introspection.agentStatsRefreshInterval",
        about="How often agents report their statistics.",
        hidden=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, and how."""

    format: str = setting(
        "auto",
        flag="log-format",
        yaml="introspection.logging.format",
        choices=("auto", "human", "json"),
        about="`auto` is human on a terminal, JSON otherwise.",
    )
    level: str = setting(
        "info",
        flag="log-level",
        yaml="introspection.logging.level",
        choices=("debug", "info", "warning", "error"),
        about="Least level that is logged.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusSettings:
    """Where numbers are shown."""

    enable: bool = setting(
        False,
        flag="prometheus-enable",
        yaml="introspection.prometheus.enable",
        about="Serve /metrics for Prometheus, on an address of its own.",
    )
    address: str = setting(
        "127.0.0.1:2112",
        flag="prometheus-address",
        yaml="introspection.prometheus.address",
        about="Address to serve them on, host:port. Nobody is asked who they are, so keep it away from others.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long it is kept who did what, and what was printed."""

    audit_logs: timedelta = setting(
        timedelta(days=90),
        flag="audit-logs-retention",
        yaml="retention.auditLogs",
        about="How long entries of the audit log are kept; 0 keeps the newest million.",
    )
    connection_logs: timedelta = setting(
        timedelta(days=90),
        flag="connection-logs-retention",
        yaml="retention.connectionLogs",
        about="How long connections to workspaces are kept in the log; 0 keeps the newest 10000 of each agent.",
    )
    build_logs: timedelta = setting(
        timedelta(days=90),
        flag="build-logs-retention",
        yaml="retention.buildLogs",
        about="How long the log of a build is kept that is not its workspace's latest; 0 keeps all.",
    )


def default_state_dir() -> str:
    """Return the directory the server keeps its database in when none is given (XDG state home)."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return str(Path(base) / "coder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole tree. Rooms receive the part they need."""

    http: HttpSettings = HttpSettings()
    tls: TlsSettings = TlsSettings()
    outbound: OutboundSettings = OutboundSettings()
    sessions: SessionSettings = SessionSettings()
    oidc: OidcSettings = OidcSettings()
    derp: DerpSettings = DerpSettings()
    apps: AppsSettings = AppsSettings()
    client: ClientSettings = field(default_factory=ClientSettings)
    log: LogSettings = LogSettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    retention: RetentionSettings = RetentionSettings()
    state_dir: str = setting(
        "",
        flag="state-dir",
        yaml="stateDir",
        about="Directory of the database. Default: `coder` in the XDG state directory.",
    )

    @property
    def state_path(self) -> Path:
        """The state directory, with its default applied."""
        return Path(self.state_dir or default_state_dir()).expanduser()


def _walk(cls: type, prefix: tuple[str, ...] = ()) -> Iterator[Option]:
    types = get_type_hints(cls)
    for each in fields(cls):
        path, kind = (*prefix, each.name), types[each.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from _walk(kind, path)
            continue
        missing = each.default is dataclasses.MISSING
        default = each.default_factory() if missing and callable(each.default_factory) else each.default
        yield Option(path=path, kind=kind, default=default, **each.metadata)


OPTIONS: tuple[Option, ...] = tuple(_walk(Settings))
"""The option table, in the order of the tree."""


def read(settings: Settings, option: Option) -> Any:
    """Return the value of one option."""
    value: Any = settings
    for name in option.path:
        value = getattr(value, name)
    return value
