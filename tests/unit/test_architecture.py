"""The repository checks its own shape: imports point one way, modules say what they are, names avoid catch-alls."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "incentive_fleet"
MODULES = sorted(PACKAGE.rglob("*.py"))
EVERYBODY = {
    "accepting",
    "addresses",
    "certificates",
    "allowed_sources",
    "findings",
    "support",
    "errors",
    "settings",
    "names",
    "failpoints",
    "logs",
    "measuring",
    "release",
    "reply_addresses",
    "sentry",
    "tracing",
    "literal",
    "text_files",
    "pausing",
    "stopping",
}
MAY_IMPORT = {
    "events": set(),
    "incentives": {"events"},
    "ledger": {"events", "incentives"},
    "brokers": {"events"},
    "consumers": {"events", "incentives", "ledger", "brokers"},
    "producers": {"events", "brokers"},
    "doctor": {"ledger", "brokers"},
    "dead_letters": {"events", "incentives", "ledger", "brokers", "consumers"},
    "telemetry": {"brokers", "ledger", "consumers", "dead_letters"},
}
MAY_IMPORT["console"] = {*MAY_IMPORT, "events"} - {"producers"}
RELAY = {"relay.py", "relay_loop.py"}  # the one part of producers that reads the ledger


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0]
    if layer not in MAY_IMPORT:
        return
    allowed = MAY_IMPORT[layer] | EVERYBODY | {layer} | ({"ledger"} if path.name in RELAY else set())
    ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("incentive_fleet.")}
    assert ours <= allowed, f"{path.name} imports {sorted(ours - allowed)}"


ADAPTERS = {path.name for path in (PACKAGE / "brokers").iterdir() if path.is_dir() and path.name != "__pycache__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_adapters_are_known_to_the_registry_alone(path: Path) -> None:
    """No adapter looks into another, and nobody past the registry into any."""
    within = path.relative_to(PACKAGE).parts
    own = {within[1]} if within[0] == "brokers" and within[1] in ADAPTERS else set()
    known = {
        name.split(".")[2]
        for name in imports_of(path)
        if name.startswith("incentive_fleet.brokers.") and name.split(".")[2] in ADAPTERS
    }
    assert within == ("brokers", "registry.py") or known <= own, f"{path.name} knows {sorted(known - own)}"


def test_the_registry_has_every_adapter() -> None:
    known = {name.split(".")[2] for name in imports_of(PACKAGE / "brokers" / "registry.py") if ".brokers." in name}
    assert known >= ADAPTERS >= {"aws", "rabbitmq"}


def test_drivers_stay_with_their_adapter() -> None:
    drivers = {"boto3": "aws", "botocore": "aws", "pika": "rabbitmq", "kombu": "rabbitmq", "amqp": "rabbitmq"}
    for path in MODULES:
        if path.relative_to(PACKAGE).parts[0] == "embedded":  # it starts brokers, and asks them how they are
            continue
        homes = {drivers[root] for name in imports_of(path) if (root := name.split(".")[0]) in drivers}
        assert homes <= {path.parent.name}, f"{path.relative_to(PACKAGE)} imports the driver of {sorted(homes)}"


def test_the_rules_do_no_input_output_and_read_no_clock() -> None:
    forbidden = {"psycopg", "sqlalchemy", "boto3", "pika", "kombu", "logging", "random", "time", "os", "socket"}
    for path in (PACKAGE / "incentives").glob("*.py"):
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & forbidden, f"{path.name} imports {sorted(roots & forbidden)}"
        assert ".now(" not in path.read_text(encoding="utf-8"), path.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_say_what_they_are_and_stay_one_idea(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(tree_of(path)) or not text.strip(), "no docstring"
    assert len(text.splitlines()) <= 300
    assert path.stem not in {"utils", "helpers", "manager", "common", "base", "util", "misc"}


def test_functions_stay_short() -> None:
    long = [
        f"{path.relative_to(PACKAGE)}:{node.name} {node.end_lineno - node.lineno + 1}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None and node.end_lineno - node.lineno >= 70
    ]
    assert long == []


def test_commands_print_through_one_module() -> None:
    """What prints by itself prints text from outside raw, or takes it for markup, sooner or later."""
    writers = {
        "click.echo",
        "click.secho",
        "click.confirm",
        "click.prompt",
        "print",
        "sys.stdout.write",
        "sys.stderr.write",
    }
    drawers = {"rich.table", "rich.markup", "rich.panel"}
    for path in (PACKAGE / "cli").rglob("*.py"):
        if path.name == "printing.py":
            continue
        calls = {ast.unparse(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)}
        assert not calls & writers, f"{path.name} calls {sorted(calls & writers)}"
        assert not imports_of(path) & drawers, path.name


def test_no_public_class_name_is_defined_twice() -> None:
    """One word, one meaning: whoever reads a name need not ask which one is meant."""
    defined = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, times in defined.items() if times > 1] == []
