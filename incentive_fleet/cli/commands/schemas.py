"""`incentives schemas write`, `check` and `graphql`."""

from __future__ import annotations

from pathlib import Path

import click

from incentive_fleet.cli.command_line import Group, fail, format_option
from incentive_fleet.cli.printing import emit, say_each, say_raw

folder_option = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("docs/events"),
    show_default=True,
    help="The folder of the documents.",
)


@click.group(cls=Group)
def schemas() -> None:
    """JSON Schemas and the AsyncAPI document of the events; the API's GraphQL schema."""


@schemas.command()
@folder_option
@format_option
def write(out: Path, output: str) -> None:
    """Write every document, from the models that check."""
    from incentive_fleet.events.schemas import write_schemas

    written = [str(path) for path in write_schemas(out)]
    emit({"written": written}, output, lambda: say_each(written))


@schemas.command()
@folder_option
@format_option
def check(out: Path, output: str) -> None:
    """Compare the documents with the code. Exit 1 when they differ."""
    from incentive_fleet.events.schemas import check_schemas

    differences = check_schemas(out)
    emit({"differences": differences}, output, lambda: say_each(differences or ["They agree."]))
    if differences:
        raise SystemExit(1)


@schemas.command()
@format_option
def graphql(output: str) -> None:
    """Print the API's schema in GraphQL's own language."""
    try:
        from incentive_fleet.console.graphql.schema import exported
    except ImportError as error:
        fail(f"schemas graphql needs the packages of incentive-fleet[console]: {error.name} is missing", code=2)
    schema = exported()
    emit({"schema": schema}, output, lambda: say_raw(schema))
