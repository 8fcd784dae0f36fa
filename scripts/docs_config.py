"""Writes docs/reference/configuration.md from the table of settings; `--check` only says whether it is up to date."""

import sys
from datetime import timedelta
from pathlib import Path

from coder import config
from coder.config import Option

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"

HEAD = f"""# Configuration of the server

Each setting has a flag of `coder server`, an environment variable and a key of the YAML file. A flag wins over the
variable, that over the file, that over the default. The file is named by `--config` or `{config.CONFIG_ENV}`;
`coder server --write-config` prints one with the settings in force. Unknown keys in it are refused.

Durations are written `90d`, `24h0m0s`, `90s` or `250ms`; lists are separated by commas, or YAML lists; `key=value`
pairs likewise, or a YAML mapping.

This page is made by `scripts/docs_config.py`.
"""

KINDS = {bool: "true or false", int: "number", timedelta: "duration", tuple[str, ...]: "list", dict[str, str]: "pairs"}


def entry(option: Option) -> str:
    value = config.plain(option.default)
    shown = ",".join(value) if isinstance(value, list) else str(value).lower() if option.kind is bool else value
    kind = " or ".join(f"`{choice}`" for choice in option.choices) or KINDS.get(option.kind, "text")
    default = f"`{shown}`" if shown or option.kind in {bool, int} else "empty"
    return f"""
### `--{option.flag}`

{option.help}

| variable | YAML key | value | default |
| --- | --- | --- | --- |
| `{option.env}` | `{option.yaml}` | {kind} | {default} |
"""


def page() -> str:
    return HEAD + "".join(entry(option) for option in config.OPTIONS if not option.hidden)


def main() -> int:
    if "--check" in sys.argv:
        fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print(f"{PAGE} is {'up to date' if fresh else 'stale: run scripts/docs_config.py'}")
        return not fresh
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
