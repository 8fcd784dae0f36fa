import json

import click
import pytest

from coder.cli import output
from coder.cli.errors import line
from coder.errors import CoderError

TRICKS = ["\x1b[2J", "\x1b]0;title\x07", "a\rb", "\x7f", "\x9b2J", "\u202egnp.exe", "\u2066x\u2069", "\ud800", "\u2028"]


@pytest.mark.parametrize("trick", TRICKS, ids=ascii)
def test_outside_text_cannot_steer_the_terminal(capsys, trick):
    output.out(trick)
    output.note(trick)
    output.out(output.table(["name"], [[trick]]))
    output.out(output.hang("name: ", trick))
    output.out(line(CoderError(trick, remedy=trick)))
    said = "".join(capsys.readouterr())
    assert said.replace("\n", "").isprintable()


def test_our_own_line_breaks_tabs_and_colours_stay(capsys):
    green = click.style("✔", fg="green")
    output.out("\tfirst\nsecond")
    click.echo(green, nl=False, color=True)
    output.note("there", before="\r\n", after="\r")
    captured = capsys.readouterr()
    assert captured.out == f"\tfirst\nsecond\n{green}"
    assert captured.err == "\r\nthere\r\n"


def test_other_scripts_stay_readable():
    text = "Zoë 日本語 ✔ 😀"
    assert output.printable(text) == text
    assert text in output.json_text([text])


def test_a_line_break_in_a_value_makes_no_line_of_its_own():
    assert output.table(["a", "b"], [["x\nroot", "y"]]).splitlines() == ["A       B", "x?root  y"]
    assert line(CoderError("no\nreally")) == "no really"


@pytest.mark.parametrize("trick", [*TRICKS, "\U000e0001", "\t\n"], ids=ascii)
def test_json_is_escaped_and_reads_as_it_was(trick):
    value = {"a": [trick], trick: '\\ " é'}
    text = output.json_text(value)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value
