import io

import pytest
from click.testing import CliRunner

from coder.cli.listing import Listing, fitted
from coder.cli.options import Group


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def width(monkeypatch):
    def set_to(columns):
        monkeypatch.setattr("sys.stdout", Terminal())
        monkeypatch.setenv("COLUMNS", str(columns))

    return set_to


ROWS = [["dev", "some middle", "a description of some length"]]
COLUMNS = ["name", "middle", "text"]


def test_columns_go_until_the_rest_fits(width):
    width(80)
    assert fitted(COLUMNS, ROWS, ("middle",)).splitlines()[0].split() == ["NAME", "MIDDLE", "TEXT"]
    width(40)
    assert fitted(COLUMNS, ROWS, ("middle", "name")).splitlines() == [
        "NAME  TEXT", "dev   a description of some length",
    ]  # fmt: skip


def test_the_last_column_may_be_shortened(width):
    width(20)
    assert fitted(COLUMNS, ROWS, ("middle",), cut="text").splitlines()[1] == "dev   a description…"
    assert fitted(COLUMNS, ROWS, ("middle",)).splitlines()[1].endswith("length"), "else nothing is lost"


def test_a_pipe_gets_everything():
    assert fitted(COLUMNS, ROWS, ("middle",), cut="text").splitlines()[1].endswith("length")


def test_columns_that_were_asked_for_stay(width):
    width(10)
    made = Listing({name: lambda one, name=name: one[name] for name in COLUMNS}, COLUMNS, least=("middle",))
    entry = dict(zip(COLUMNS, ROWS[0], strict=True))
    assert "MIDDLE" not in made.table([entry], made.pick(None))
    assert "MIDDLE" in made.table([entry], made.pick("name,middle"))


def test_help_of_a_group_has_whole_sentences_and_aliases_work():
    group = Group("things", aliases={"rm": "remove"})

    @group.command("remove")
    def remove():
        """Remove a thing: its connections end at once, its sessions and tokens are refused from then on. More."""

    told = CliRunner().invoke(group, ["--help"]).output
    assert "refused from then on" in " ".join(told.split())
    assert CliRunner().invoke(group, ["rm"]).exit_code == 0
