"""`coder templates`: what workspaces are made of."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from coder.cli import output, shapes
from coder.cli.context import Globals
from coder.cli.errors import ApiError
from coder.cli.listing import fitted
from coder.cli.options import Duration, Group, format_duration, output_option

if TYPE_CHECKING:
    from coder.cli.api import Api

F = TypeVar("F", bound=Callable[..., Any])

_PATH = "/api/v2/organizations/default/templates"
_EDITABLE = (
    *("name", "kind", "display_name", "description", "icon", "default_ttl_ms", "browser_only", "max_port_share_level"),
    *("cors_behavior", "settings", "agents", "parameters"),
)
_LEVELS = click.Choice(["owner", "organization", "authenticated", "public"])


@click.group("templates", cls=Group, aliases={"ls": "list", "rm": "delete", "add": "create"})
def command() -> None:
    """List and show templates; those who may change the deployment also create, edit and delete them."""


@command.command("list")
@output_option("table", "json")
@click.pass_obj
def list_templates(flags: Globals, *, form: str) -> None:
    """List the templates."""
    with flags.api() as api:
        found = api.ask("/api/v2/templates", [shapes.TEMPLATE])
    if form == "json":
        output.out(output.json_text(found))
        return
    rows = [
        [each["name"], each.get("kind") or "", str(each.get("workspace_count", "")), _stops(each), each["description"]]
        for each in found
    ]
    columns = ("name", "kind", "workspaces", "stops after", "description")
    output.out(fitted(columns, rows, ("stops after",), cut="description"))


def _stops(template: Any) -> str:
    return format_duration(template["default_ttl_ms"] / 1000) if template.get("default_ttl_ms") else ""


@command.command("show")
@click.argument("name")
@output_option("yaml", "json")
@click.pass_obj
def show(flags: Globals, *, name: str, form: str) -> None:
    """Show a template, as a file that 'create --file' and 'edit --file' read."""
    with flags.api() as api:
        found = api.template(name)
    if form == "json":
        output.out(output.json_text(found))
        return
    import yaml

    kept = {key: found[key] for key in _EDITABLE if key in found}
    output.out(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).rstrip("\n"))


def _fields(function: F) -> F:
    """Add the options that `create` and `edit` share."""
    options = (
        click.option(
            "-f", "--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Read it from this file, YAML or JSON; options go before what it says.",
        ),
        click.option("--display-name", help="How pages call it."),
        click.option("--description", help="What it is for, in one line."),
        click.option("--icon", help="Path or URL of a picture."),
        click.option("--stop-after", type=Duration(), help="Stop new workspaces after so much idle time; 0: never."),
        click.option("--browser-only/--no-browser-only", default=None, help="Nobody gets a tunnel, only pages."),
        click.option("--max-port-share-level", type=_LEVELS, help="With whom users may share ports at most."),
        click.option(
            "--cors-behavior", type=click.Choice(["simple", "passthru"]),
            help="Who answers pages of other origins that read from apps: the server, or the apps themselves.",
        ),
        click.option(
            "--set", "settings", multiple=True, metavar="NAME=VALUE",
            help="A setting of its kind, such as image=ubuntu; the value is YAML. Repeatable.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@command.command("create")
@click.argument("name")
@click.option("--kind", type=click.Choice(["machine", "process", "docker", "ssh"]), help="Who starts the agents.")
@_fields
@click.pass_obj
def create(flags: Globals, /, *, name: str, kind: str | None, **given: Any) -> None:
    """Create a template, from options or from a file."""
    wanted = _wanted(given) | {"name": name} | ({"kind": kind} if kind else {})
    if "kind" not in wanted:
        raise click.UsageError("Say who starts the agents: --kind machine, process, docker or ssh.")
    with flags.api() as api:
        _put(api, "POST", _PATH, wanted)
    output.out(f"The template {name!r} has been created. Make a workspace of it: coder create NAME --template {name}")


@command.command("edit")
@click.argument("name")
@click.option("--rename", metavar="NAME", help="Give it another name.")
@_fields
@click.pass_obj
def edit(flags: Globals, /, *, name: str, rename: str | None, **given: Any) -> None:
    """Change a template. Workspaces become as it says with 'coder update', or when they are made."""
    wanted = _wanted(given)
    wanted.pop("name", None)
    kind = wanted.pop("kind", None)
    if rename:
        wanted["name"] = rename
    if not wanted:
        raise click.UsageError("Nothing is to be changed; give options or --file.")
    with flags.api() as api:
        found = api.template(name)
        if kind not in {None, found.get("kind")}:
            raise click.UsageError(f"The kind of a template never changes; {name} is of the kind {found.get('kind')}.")
        if given["settings"]:
            wanted["settings"] = (found.get("settings") or {}) | wanted["settings"]
        _put(api, "PATCH", f"/api/v2/templates/{quote(found['id'])}", wanted)
    output.out(f"The template {name!r} has been changed.")


@command.command("delete")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(flags: Globals, *, name: str, yes: bool) -> int:
    """Delete a template that no workspace is made of. Exits with 1 when the answer to the question is no."""
    with flags.api() as api:
        found = api.template(name)
        if not yes:
            if not flags.interactive:
                raise click.UsageError("Nobody is there to confirm; pass --yes to delete.")
            if not click.confirm(f"Delete the template {name!r}?", err=True):
                output.note("Nothing was deleted.")
                return 1
        api.call("DELETE", f"/api/v2/templates/{quote(found['id'])}")
    output.out(f"The template {name!r} has been deleted.")
    return 0


def _put(api: "Api", method: str, path: str, wanted: dict[str, Any]) -> None:
    """Make or change a template. Raises ApiError, which says how settings are given."""
    try:
        api.call(method, path, wanted)
    except ApiError as error:
        if any(field.startswith("settings.") for field in error.fields):
            error.remedy = "Settings are given with --set NAME=VALUE, or in a file with --file."
        raise


def _wanted(given: dict[str, Any]) -> dict[str, Any]:
    """Return what file and options say. Raises click.BadParameter."""
    wanted = _read(given["file"]) if given["file"] else {}
    for name in ("display_name", "description", "icon", "browser_only", "max_port_share_level", "cors_behavior"):
        if given[name] is not None:
            wanted[name] = given[name]
    if given["stop_after"] is not None:
        wanted["default_ttl_ms"] = round(given["stop_after"] * 1000)
    if given["settings"]:
        wanted["settings"] = (wanted.get("settings") or {}) | dict(map(_setting, given["settings"]))
    return wanted


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise click.BadParameter(f"{file} is neither YAML nor JSON", param_hint="--file") from None
    if not isinstance(read, dict):
        raise click.BadParameter(f"{file} does not describe a template", param_hint="--file")
    if unknown := sorted(str(key) for key in read.keys() - set(_EDITABLE)):
        text = f"{file}: a template has no {', '.join(unknown)}; it has {', '.join(_EDITABLE)}"
        raise click.BadParameter(text, param_hint="--file")
    return read


def _setting(text: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r} is not of the form name=value", param_hint="--set")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise click.BadParameter(f"{value!r} is no YAML", param_hint="--set") from None
