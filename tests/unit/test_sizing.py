"""The tables of docs/deploy/README.md name the roles that the three ways really run, with how many and how much of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.judges import DEPLOY, Template
from tests.parts import ROOT
from tests.unit.test_scaling import rows

PAGE = ROOT / "docs/deploy/README.md"
BASE, OVERLAYS = DEPLOY / "kubernetes/base", DEPLOY / "kubernetes/overlays"
NOWHERE = "-"
# What `jobs` runs where nothing has a schedule, and where a login is made by Postgres' own start.
JOBS = ("expire", "verify")
MEBIBYTES = {"m": 1, "g": 1_024, "Mi": 1, "Gi": 1_024}


def mebibytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()  # type: ignore[union-attr]
    return int(number) * MEBIBYTES[unit]


def cell(cores: float, memory: int) -> str:
    return f"{cores:g}, {memory:,}"


def docker() -> dict[str, str]:
    services = yaml.safe_load((DEPLOY / "docker/compose.yml").read_text(encoding="utf-8"))["services"]
    found = {}
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        found[name] = cell(float(limits["cpus"]), mebibytes(limits["memory"]))
    jobs = found.pop("jobs")
    return found | dict.fromkeys(JOBS, jobs)


def stack(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.load((DEPLOY / f"aws/{name}.yaml").read_text(encoding="utf-8"), Template)
    return read


def tasks() -> list[dict[str, Any]]:
    """Their properties."""
    resources = [one for name in ("services", "console") for one in stack(name)["Resources"].values()]
    return [one["Properties"] for one in resources if one["Type"] == "AWS::ECS::TaskDefinition"]


def ecs() -> dict[str, str]:
    return {
        task["Family"]["Fn::Sub"].removeprefix("${Prefix}-"): cell(int(task["Cpu"]) / 1_024, int(task["Memory"]))
        for task in tasks()
    }


def documents(folder: Path) -> Iterator[Any]:
    for path in sorted(folder.rglob("*.yaml")):
        yield from (one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one)


def containers() -> Iterator[tuple[str, Any]]:
    """Each container of the manifests by its role."""
    for one in (*documents(BASE), *documents(OVERLAYS)):
        if one.get("kind") not in ("Deployment", "Job", "CronJob"):
            continue
        spec = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"]
        pod = spec["template"]["spec"]
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            yield (one["metadata"]["name"] if container["name"] == "incentives" else container["name"]), container


def kubernetes() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, container in containers():
        cpu = container["resources"]["requests"]["cpu"]
        cores = int(cpu.removesuffix("m")) / 1_000 if cpu.endswith("m") else float(cpu)
        found[name] = cell(cores, mebibytes(container["resources"]["limits"]["memory"]))
    return found


def test_the_table_of_limits_says_what_the_templates_set_for_each_role_that_they_run() -> None:
    told = {name: cells for name, cells in rows(PAGE, "limits").items() if name not in ("role", "---")}
    found = (docker(), ecs(), kubernetes())
    assert told.keys() == set().union(*found), "a role that a way runs, and one that none does"
    for name, cells in told.items():
        assert cells == [way.get(name, NOWHERE) for way in found], name


def test_every_role_has_what_it_takes_at_rest() -> None:
    """A limit below the measured memory would end a role that does nothing."""
    text = PAGE.read_text(encoding="utf-8")
    measured = {name: int(mib) for name, mib in re.findall(r"`(consume|relay|dlq collect)[^`]*` (\d+) MiB", text)}
    assert measured.keys() == {"consume", "relay", "dlq collect"}
    for way in (docker(), ecs(), kubernetes()):
        for command, mib in measured.items():
            limit = int(way[command.removeprefix("dlq ")].split(", ")[1].replace(",", ""))
            assert limit >= 2 * mib, f"{command} takes {mib} MiB at rest and may take {limit}"


def test_as_many_of_the_fleet_as_the_table_says() -> None:
    counts = {row[0]: row[2] for row in table_of_roles()}
    parameters = stack("services")["Parameters"]
    scaled = [one["spec"] for one in documents(OVERLAYS) if one.get("kind") == "ScaledObject"]
    scaled = [one for one in scaled if one["scaleTargetRef"]["name"] == "consume"]
    assert len(scaled) == len(list(OVERLAYS.iterdir()))
    for least, most in [
        (parameters["TasksLeast"]["Default"], parameters["TasksMost"]["Default"]),
        *((one["minReplicaCount"], one["maxReplicaCount"]) for one in scaled),
    ]:
        assert counts["the fleet"].startswith(f"{least} to {most}")


def test_each_command_of_the_table_of_roles_is_run_by_a_way() -> None:
    run = [command for way in (compose_commands(), task_commands(), pod_commands()) for command in way]
    for role, command, *_ in table_of_roles():
        words = command.split("`")[1].split()
        fixed = words[: next((at for at, word in enumerate(words) if word.startswith("--")), len(words))]
        assert [one for one in run if " ".join(fixed[-2:]) in one], f"{role}: nothing runs {command}"


def table_of_roles() -> list[list[str]]:
    text = PAGE.read_text(encoding="utf-8").partition("| role | command |")[2].partition("\n\n")[0]
    lines = [line for line in text.splitlines()[2:] if line.startswith("|")]
    return [[piece.strip() for piece in line.strip("|").split("|")] for line in lines]


def compose_commands() -> list[str]:
    services = yaml.safe_load((DEPLOY / "docker/compose.yml").read_text(encoding="utf-8"))["services"].values()
    return [" ".join(map(str, one["command"])) for one in services if "command" in one]


def task_commands() -> list[str]:
    return [
        " ".join([*one.get("EntryPoint", []), *one["Command"]])
        for task in tasks()
        for one in task["ContainerDefinitions"]
    ]


def pod_commands() -> list[str]:
    return [" ".join([*one.get("command", []), *one.get("args", [])]) for _, one in containers()]
