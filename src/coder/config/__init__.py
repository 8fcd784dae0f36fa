"""Every setting of the server: one frozen tree, one table, four sources.

The fields of `tree` *are* the table: name, type and default of an option are those of its field, the rest stands in its
`setting(...)`. Defaults yield to the YAML file, that to `CODER_*` variables, those to flags. No other module reads the
environment. Nothing heavy is imported here, because the command line builds its options from this table.
"""

from coder.config.options import ConfigError, Option
from coder.config.sources import CONFIG_ENV, load, to_yaml
from coder.config.tree import (
    OPTIONS,
    AppsSettings,
    ClientSettings,
    DerpSettings,
    HttpSettings,
    LogSettings,
    OidcSettings,
    OutboundSettings,
    RetentionSettings,
    SessionSettings,
    Settings,
    TlsSettings,
    read,
)
from coder.config.values import format_duration, listen_address, parse_duration, plain, split_address

__all__ = [
    "CONFIG_ENV",
    "OPTIONS",
    "AppsSettings",
    "ClientSettings",
    "ConfigError",
    "DerpSettings",
    "HttpSettings",
    "LogSettings",
    "OidcSettings",
    "Option",
    "OutboundSettings",
    "RetentionSettings",
    "SessionSettings",
    "Settings",
    "TlsSettings",
    "format_duration",
    "listen_address",
    "load",
    "parse_duration",
    "plain",
    "read",
    "split_address",
    "to_yaml",
]
