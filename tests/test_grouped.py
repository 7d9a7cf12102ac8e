"""Options declared as dataclasses come out as typer's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from bge_eval.cli.grouped import grouped


class Colour(StrEnum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class InnerFlags:
    """Options within options."""

    colour: Annotated[Colour, typer.Option(help="Colour of the line.")] = Colour.RED
    dashed: Annotated[bool | None, typer.Option("--dashed/--solid")] = None


@dataclass(frozen=True, slots=True)
class LineFlags:
    """Options of one subject."""

    name: Annotated[list[str], typer.Option(help="Names; repeat.")]
    inner: InnerFlags = field(default_factory=InnerFlags)
    width: Annotated[int, typer.Option(min=1, help="Width.", rich_help_panel="Size")] = 2


@dataclass(frozen=True, slots=True)
class WidthFlags:
    """Declares an option that `LineFlags` has."""

    width: Annotated[int, typer.Option()] = 3


@grouped
def draw(flags: LineFlags, times: Annotated[int, typer.Argument()] = 1) -> None:
    """Draw a line."""
    inner = flags.inner
    typer.echo(f"{flags.name} {flags.width} {inner.colour!r} {inner.dashed} {times}")


def run(*words: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(draw)
    done = CliRunner().invoke(app, list(words), env={"COLUMNS": "80", "TERM": "dumb"})
    return done.exit_code, done.output


def test_defaults_lists_choices_and_flags_reach_the_record() -> None:
    code, text = run("--name", "a", "--name", "b")
    assert (code, text) == (0, "['a', 'b'] 2 <Colour.RED: 'red'> None 1\n")
    code, text = run("3", "--name", "a", "--width", "5", "--colour", "blue", "--solid")
    assert (code, text) == (0, "['a'] 5 <Colour.BLUE: 'blue'> False 3\n")


def test_constraints_of_an_option_hold() -> None:
    assert run()[0] == 2
    assert run("--name", "a", "--width", "0")[0] == 2
    assert run("--name", "a", "--colour", "green")[0] == 2


def test_help_shows_fields_in_order_and_panels() -> None:
    code, text = run("--help")
    assert code == 0
    places = [text.index(word) for word in ("Draw a line", "--name", "--colour", "Size", "--width")]
    assert places == sorted(places)
    assert "[required]" in text and "[default: 2]" in text


def test_an_option_declared_twice_is_refused() -> None:
    def twice(flags: LineFlags, more: WidthFlags) -> None: ...

    with pytest.raises(TypeError, match="twice declares an option twice: width"):
        grouped(twice)
