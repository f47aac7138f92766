"""Calls every command of the program with the least that it takes, and keeps all that it printed, logged or raised."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from incentive_fleet.cli.root import cli
from tests.command import every_command

PARTS_OF_THEIR_OWN = {("up",), ("demo",)}  # they start parts and take these for whatever the settings say
LONG = {("consume",), ("answer-quotes",), ("relay",), ("dlq", "collect"), ("serve",)}  # they wait for what is away


def leaves() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for path, command, _ in every_command():
        if not isinstance(command, click.Group) and path not in PARTS_OF_THEIR_OWN:
            yield path, command


def words_for(command: click.Command, folder: Path) -> list[str]:
    """The least that a command takes, from what it says of itself."""
    words: list[str] = []
    for parameter in command.params:
        if parameter.required:
            value = _value_for(parameter.type, folder)
            words += [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]
    return words


def _value_for(kind: click.ParamType[Any], folder: Path) -> str:
    if isinstance(kind, click.Choice):
        return str(kind.choices[-1])
    if isinstance(kind, click.Path):
        return str(folder if kind.dir_okay and not kind.file_okay else folder / "file")
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        return "1"
    return "EUR"


def shown_by(words: list[str], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> tuple[str, Any]:
    """All that a command printed or logged, the traceback of its error with it, and that error."""
    ended: BaseException | None = None
    with caplog.at_level(logging.DEBUG, "incentive_fleet"):
        try:
            cli.main(words, standalone_mode=False)
        except (Exception, SystemExit) as error:
            ended = error
    out, err = capfd.readouterr()
    trace = "".join(traceback.format_exception(ended)) if ended else ""
    return f"{out}{err}{caplog.text}{trace}", ended


def calls(form: str, folder: Path) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Every command that ends by itself, as text or as JSON where it has that."""
    for path, command in leaves():
        formats = [
            one.type.choices for one in command.params if one.name == "output" and isinstance(one.type, click.Choice)
        ]
        if path in LONG or (form == "json" and not any("json" in choices for choices in formats)):
            continue
        yield path, [*path, *words_for(command, folder), *(("--format", "json") if form == "json" else ())]
