"""What the three first hours tell to type, held against what is there: stacks with their parameters and outputs, secrets, names."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from incentive_fleet.settings import Settings
from tests.deploy.judges import DEPLOY, ROOT, Template, judge
from tests.deploy.test_kubernetes import of_kind, pods

CLOUDFORMATION_BYTES = 51_200  # of a template that `aws cloudformation deploy` sends without a bucket


def shell(page: str) -> str:
    """Everything that a page tells to type, lines joined where they go on."""
    blocks = re.findall(r"```(?:ba)?sh\n(.*?)```", (ROOT / "docs/deploy" / page).read_text(encoding="utf-8"), re.DOTALL)
    return "\n".join(blocks).replace("\\\n", " ")


@pytest.mark.parametrize("page", ["docker.md", "ecs.md", "kubernetes.md", "restore.md", "upgrade.md"])
def test_what_is_to_be_typed_is_shell(page: str) -> None:
    subprocess.run(["bash", "-n", "-c", shell(page)], check=True)


def stacks() -> Iterator[tuple[str, Any, set[str]]]:
    """Each stack that the page deploys: its name, its template, and the parameters that it is given."""
    for line in shell("ecs.md").splitlines():
        if line.startswith("aws cloudformation deploy"):
            [name] = re.findall(r"--stack-name (\S+)", line)
            [file] = re.findall(r"--template-file (\S+)", line)
            assert len((ROOT / file).read_bytes()) <= CLOUDFORMATION_BYTES, file
            given = set(re.findall(r"\s(\w+)=", line.partition("--parameter-overrides")[2]))
            yield name, yaml.load((ROOT / file).read_text(encoding="utf-8"), Template), given


def test_every_stack_is_given_the_parameters_that_it_needs_and_no_others() -> None:
    deployed = list(stacks())
    assert {name for name, _, _ in deployed} == {f"incentives-{file.stem}" for file in (DEPLOY / "aws").glob("*.yaml")}
    for name, template, given in deployed:
        needed = {key for key, one in template["Parameters"].items() if "Default" not in one}
        assert needed <= given <= template["Parameters"].keys(), name
    page = (ROOT / "docs/deploy/ecs.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[(\w+)\.yaml\]", page, re.MULTILINE) == [
        name.removeprefix("incentives-") for name, _, _ in deployed
    ]
    assert set(re.findall(r"`([A-Z]\w+)=", page)) <= {key for _, one, _ in deployed for key in one["Parameters"]}
    services = yaml.load((DEPLOY / "aws/services.yaml").read_text(encoding="utf-8"), Template)["Resources"].values()
    for one in services:
        if one["Type"] == "AWS::ECS::Service":
            assert f"`{one['Properties']['ServiceName']['Fn::Sub'].removeprefix('${Prefix}-')}`" in page


def test_every_output_and_task_that_is_asked_for_is_there() -> None:
    typed, templates = shell("ecs.md"), {name: template for name, template, _ in stacks()}
    asked = set(re.findall(r"output (incentives-\w+) (\w+)", typed))
    assert len(asked) >= 7
    for stack, output in asked:
        assert output in templates[stack]["Outputs"], f"{stack}: {output}"
    families = {
        one["Properties"]["Family"]["Fn::Sub"].replace("${Prefix}", "incentives")
        for one in templates["incentives-services"]["Resources"].values()
        if one["Type"] == "AWS::ECS::TaskDefinition"
    }
    assert {f"incentives-{name}" for name in re.findall(r"^task (\w+)$", typed, re.MULTILINE)} <= families
    alarms = {
        one["Properties"]["AlarmName"]["Fn::Sub"].replace("${Prefix}", "incentives")
        for one in templates["incentives-alarms"]["Resources"].values()
        if one["Type"] == "AWS::CloudWatch::Alarm"
    }
    assert set(re.findall(r"--alarm-name (\S+)", typed)) <= alarms


def test_the_overlay_of_one_s_own_is_built_and_says_what_every_pod_gets(tmp_path: Path) -> None:
    [written] = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs/deploy/kubernetes.md").read_text(encoding="utf-8"), re.DOTALL
    )
    theirs = tmp_path / "overlay"
    theirs.mkdir()
    here = os.path.relpath(ROOT, theirs)
    (theirs / "kustomization.yaml").write_text(written.replace("../incentive-fleet", here).replace("...", "a" * 64))
    objects = list(yaml.safe_load_all(judge("kubectl", "kustomize", theirs)))
    images = {one["image"] for _, pod in pods(objects) for one in [*pod.get("initContainers", []), *pod["containers"]]}
    assert images == {"registry.internal/incentive-fleet@sha256:" + "a" * 64}
    [told] = of_kind(objects, "ConfigMap").values()
    assert Settings.from_environment(told["data"]).allowed_sources == "/shop/checkout, /stores/*"
    for name, pod in pods(objects):
        [container] = pod["containers"]
        assert {"configMapRef": {"name": told["metadata"]["name"]}} in container["envFrom"], name
    ports = [
        port["port"]
        for rule in of_kind(objects, "NetworkPolicy")["names-and-ledger"]["spec"]["egress"]
        for port in rule["ports"]
    ]
    assert ports == [53, 53, 5432, 4318]
    built = tmp_path / "built.yaml"
    built.write_text(yaml.safe_dump_all(one for one in objects if not one["apiVersion"].startswith("keda.sh/")))
    judge("kubernetes-validate", "--strict", built)


@pytest.mark.parametrize("overlay", ["sqs", "rabbitmq"])
def test_every_secret_and_workload_that_is_named_is_there(overlay: str) -> None:
    typed = shell("kubernetes.md")
    objects = list(yaml.safe_load_all(judge("kubectl", "kustomize", f"deploy/kubernetes/overlays/{overlay}")))
    created = set(re.findall(r"create secret generic (\S+)", typed))
    used = {
        source["secretRef"]["name"]
        for _, pod in pods(objects)
        for container in [*pod.get("initContainers", []), *pod["containers"]]
        for source in container["envFrom"]
        if "secretRef" in source
    } | {
        one["name"]
        for keda in of_kind(objects, "TriggerAuthentication").values()
        for one in keda["spec"].get("secretTargetRef", [])
    }
    of_the_broker = {"incentives-rabbitmq", "incentives-rabbitmq-topology", "incentives-keda"}
    assert used == (created if overlay == "rabbitmq" else created - of_the_broker)
    if overlay == "rabbitmq":
        there = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in objects}
        assert set(re.findall(r"(?:deployment|job)/\w+", typed)) <= there


def test_every_service_that_is_named_is_in_the_compose_file() -> None:
    typed = shell("docker.md")
    services = yaml.safe_load((DEPLOY / "docker/compose.yml").read_text(encoding="utf-8"))["services"]
    named = set(re.findall(r" exec (?:-T )?(\w+)", typed)) | set(re.findall(r" run --rm .*\b(jobs)\b", typed))
    named |= {word for words in re.findall(r" stop (.+)", typed) for word in words.split()}
    assert named == {"postgres", "jobs", "consume", "quotes", "relay", "collect"}
    assert named <= services.keys()
    variables = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "docker/compose.yml").read_text(encoding="utf-8")))
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "docker/compose.yml").read_text(encoding="utf-8")))
    example = re.findall(r"^(\w+)=", (DEPLOY / "docker/example.env").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(example) == sorted(asked)
    [names] = re.findall(r"for name in ([A-Z_ ]+);", typed)
    assert {f"{name}_PASSWORD" for name in names.split()} == variables
