"""The documents say what is: commands and options exist, all are described, links resolve, no machine's paths are in them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from incentive_fleet.cli.root import cli
from incentive_fleet.settings import PREFIX, Settings
from tests.rules_page import sections

ROOT = Path(__file__).parents[2]
NOT_OURS = {"sample", "build", "dist", "__pycache__"}


def our_files() -> Iterator[Path]:
    """The repository's files; not by asking git, which may not be there."""
    for folder, below, names in os.walk(ROOT):
        below[:] = [
            n for n in below if n not in NOT_OURS and not n.endswith(".egg-info") and (n[0] != "." or n == ".ci")
        ]
        yield from (Path(folder) / name for name in names if name != ".git")  # a worktree's file names its machine


FILES = sorted(our_files())
PAGES = [path for path in FILES if path.suffix == ".md"]
COMMAND_LINE = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOUR = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DLQ_FILTERS = {
    "groups",
    "list",
    "edit",
    "replay",
    "redirect",
    "discard",
    "restore",
    "export",
}  # described once, for all


def commands(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that can be run, by its words."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


COMMANDS = dict(commands())


def options_of(command: click.Command) -> set[str]:
    return {
        name
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }


def section(words: tuple[str, ...]) -> str:
    found = re.search(rf"^## incentives {' '.join(words)}\n(.*?)(?=^## |\Z)", COMMAND_LINE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/command-line.md has no section for `incentives {' '.join(words)}`"
    return found[1]


def shell_lines(text: str) -> Iterator[str]:
    """What a reader would type: lines of sh blocks, and those behind a prompt in console blocks."""
    for language, body in FENCED.findall(text):
        lines = body.splitlines()
        if language == "sh":
            yield from (line for line in lines if line.strip())
        elif language == "console":
            yield from (line[2:] for line in lines if line.startswith("$ "))


def typed_commands(text: str) -> Iterator[list[str]]:
    """The arguments of each `incentives` in the shell lines, however it is nested."""
    for line in shell_lines(text):
        for piece in re.split(r'&&|\||"?\$\(', line):
            words = shlex.split(re.sub(r'\)"?\s*(#.*)?$', "", piece) if "$(" in line else piece, comments=True)
            if words and words[0] == "incentives":
                yield words[1:]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_documented(words: tuple[str, ...]) -> None:
    text = section(words)
    if words[0] == "dlq" and words[-1] in DLQ_FILTERS:
        text += section(("dlq",))
    hidden = {"--help", "-h"} | (set() if words == ("ledger", "export") else {"--format"})  # said once for all
    described = set(re.findall(r"--[a-z][a-z-]*", text))
    assert options_of(COMMANDS[words]) - hidden <= described


def test_the_page_documents_no_command_or_option_that_is_not() -> None:
    documented = {tuple(title.split()) for title in re.findall(r"^## incentives (.*)$", COMMAND_LINE, re.MULTILINE)}
    assert documented == {*COMMANDS, ("dlq",)}
    known = set.union(*(options_of(command) for command in COMMANDS.values())) | {"--help", "--no-collect"}
    assert set(re.findall(r"(?<![-\w])--[a-z][a-z-]*", COMMAND_LINE)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_pages_tell_to_type_exists(page: Path) -> None:
    for words in typed_commands(page.read_text(encoding="utf-8")):
        length = max((n for n in range(1, len(words) + 1) if tuple(words[:n]) in COMMANDS), default=0)
        assert length, f"incentives {' '.join(words)}: no such command"
        options = {word.split("=")[0] for word in words[length:] if word.startswith("--")}
        known = options_of(COMMANDS[tuple(words[:length])]) | {"--help"}
        assert options <= known, f"incentives {' '.join(words)}: {sorted(options - known)} does not exist"


def test_the_tour_tells_to_type_most_commands() -> None:
    typed = [tuple(words[:2]) for words in typed_commands(TOUR)]
    assert len(typed) > 25
    assert {words[0] for words in typed} >= {"up", "down", "campaigns", "grants", "publish", "consume", "wallet", "dlq"}


def test_the_readme_is_short_and_its_five_minutes_lie_on_the_tours_way() -> None:
    """A reader who goes on from one to the other meets the same commands in the same order, and the same figures."""
    assert len(README.splitlines()) < 150
    tour, typed = (list(dict.fromkeys(map(tuple, typed_commands(page)))) for page in (TOUR, README))
    assert len(typed) > 7
    assert [command for command in tour if command in typed] == typed


def test_the_readme_draws_every_room_of_the_package() -> None:
    drawn = re.findall(r"^(?:\u251c|\u2514)\u2500\u2500 (\w+)/", README, re.MULTILINE)
    rooms = {path.name for path in (ROOT / "incentive_fleet").iterdir() if (path / "__init__.py").exists()}
    assert set(drawn) == rooms


def test_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        typed = "\n".join([*shell_lines(text), *re.findall(r"`(make [^`]+)`", text)])
        assert set(re.findall(r"\bmake ([a-z0-9-]+)", typed)) <= targets, page.name


def test_the_page_of_settings_lists_each_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(INCENTIVES_\w+)` \|([^|]*)\|", SETTINGS, re.MULTILINE))
    ours = {name: field for name, field in Settings.model_fields.items() if not name.startswith("aws_")}
    assert rows.keys() == {PREFIX + name.upper() for name in ours}
    for name, field in ours.items():
        value = field.default
        if isinstance(value, tuple):
            value = ",".join(f"{part:g}" for part in value)
        if value is not None:
            assert rows[PREFIX + name.upper()].strip("` ") == (f"{value:g}" if isinstance(value, float) else str(value))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{target} does not exist"
        if anchor:
            linked = there.read_text(encoding="utf-8")
            anchors = set(re.findall(r'<a id="([\w.]+)"></a>', linked))
            for title in re.findall(r"^#+ (.*)$", linked, re.MULTILINE):
                anchors.add(re.sub(r"[^\w -]", "", title).lower().replace(" ", "-"))
            assert anchor in anchors, target


def references() -> Iterator[tuple[str, str]]:
    """Every "rules 5.2" and "rules 5.3, 6.4 and 8" of the repository, with where it stands."""
    number = r"\d+(?:\.\d+)?"
    for path in FILES:
        if path.suffix in {".py", ".sql", ".md", ".toml", ".yml", ".sh"} or path.name == "Makefile":
            text = path.read_text(encoding="utf-8")
            for found in re.finditer(rf"\brules ({number}(?:(?:, | and | to ){number})*)", text):
                yield from ((f"{path.relative_to(ROOT)}: {found[0]}", one) for one in re.findall(number, found[1]))


def test_what_points_at_a_section_points_at_one_that_is_there() -> None:
    pointing, numbers = list(references()), {section.number for section in sections()}
    assert len(pointing) > 50
    assert [where for where, number in pointing if number not in numbers] == []


def test_no_file_points_at_a_page_that_nobody_has() -> None:
    word = re.compile(r"\bSP" + r"EC\b")  # written so that this line is none
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in FILES}
    assert [str(path.relative_to(ROOT)) for path, text in texts.items() if word.search(text)] == []


def test_nothing_names_a_machine() -> None:
    """What is written on one machine must hold on the next: no home folders, no scratch folders, no package hosts."""
    machine = re.compile(r"(?<![\w.])/(?:root|home/\w+|work|Users/\w+|tmp/\w+[./]\w+)/")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in FILES
        if path.suffix not in {".gz", ".png", ".svg"}
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if machine.search(line)
    ]
    assert found == []


def test_decisions_are_one_short_page_each() -> None:
    for page in (ROOT / "docs/adr").glob("*.md"):
        title, _, body = page.read_text(encoding="utf-8").partition("\n")
        assert title.startswith("# "), page.name
        assert len(re.findall(r"[.!?:](?:\s|$)", body)) <= 14, f"{page.name}: ten sentences at most"


def test_decisions_are_numbered_without_a_gap_and_one_that_is_superseded_names_its_successor() -> None:
    pages = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if "superseded" in text.lower():
            assert re.search(r"[Ss]uperseded by \[ADR \d+\]\(\d{4}-", text), page.name


def test_the_list_of_pages_names_each() -> None:
    listed = set(re.findall(r"\]\(([\w-]+(?:\.md|/?))\)", (ROOT / "docs/README.md").read_text(encoding="utf-8")))
    there = {path.name for path in (ROOT / "docs").iterdir() if path.is_dir() or path.suffix == ".md"} - {"README.md"}
    assert there == listed
