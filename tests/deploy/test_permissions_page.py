"""docs/deploy/permissions.md repeats the policies of deploy/aws, word by word."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_plan, rabbitmq_queues
from incentive_fleet.settings import Settings
from tests.deploy.test_aws import resolved, template

PAGE = (Path(__file__).parents[2] / "docs/deploy/permissions.md").read_text(encoding="utf-8")
WORKS: Final = (
    "consume",
    "quotes",
    "collect",
    "relay",
    "console",
    "publish",
    "replay",
    "topology",
)  # in the order of the page


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = PAGE.partition(f"\n{heading}\n")[2]
    table = re.search(r"^\| role .*\n\| ---.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    assert table is not None
    return [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table[1].splitlines()
    ]


ROLES: Final = {
    "consume": "ConsumeRole",
    "quotes": "QuotesRole",
    "collect": "CollectRole",
    "relay": "RelayRole",
    "console": "ConsoleRole",
}
POLICIES: Final = {"publish": "PublishPolicy", "replay": "ReplayPolicy", "topology": "TopologyPolicy"}
ON_AWS: Final = {row[0] for row in rows("## AWS")}
KEY: Final = {"kms:Decrypt", "kms:GenerateDataKey*"}


def allowed(role: str, prefix: str) -> dict[str, set[str]]:
    """By action the ARNs that the template allows it on."""
    resources = template("console" if role == "console" else "services")["Resources"]
    if role in ROLES:
        [policy] = resources[ROLES[role]]["Properties"]["Policies"]
        document = policy["PolicyDocument"]
    else:
        document = resources[POLICIES[role]]["Properties"]["PolicyDocument"]
    found: dict[str, set[str]] = defaultdict(set)
    for statement in resolved(
        document, {}, {"Prefix": prefix, "MessagingKeyArn": "the key", "ReplyQueues": "checkout-*"}
    )["Statement"]:
        on = statement["Resource"]
        for action in statement["Action"]:
            found[action] |= set(on if isinstance(on, list) else [on])
    return dict(found)


def lines_of_the_page(role: str) -> Iterator[str]:
    """The rows that the table has for a role: the actions that stand on the same things, together."""
    by_things: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for action, arns in allowed(role, "incentives").items():
        if action not in KEY:
            by_things[tuple(sorted(arn.rpartition(":")[2] for arn in arns))].append(action)
    for things, actions in sorted(by_things.items(), reverse=True):
        yield f"| {role} | {', '.join(f'`{a}`' for a in sorted(actions))} | {', '.join(f'`{t}`' for t in things)} |"


def test_the_page_tells_the_policies_of_the_template() -> None:
    written = [
        line
        for line in PAGE.partition("\n## AWS\n")[2].splitlines()
        if re.match(r"\| [a-z]+ \| `(s[qn]s|cloudwatch):", line)
    ]
    assert written == [line for role in WORKS for line in lines_of_the_page(role)]
    for role in WORKS:
        assert (allowed(role, "x").keys() >= KEY) == (role not in {"console", "topology"}), role


def test_the_page_has_a_row_for_every_work_on_both_brokers() -> None:
    assert {row[0] for row in rows("## RabbitMQ")} == ON_AWS == set(WORKS)


def test_who_looks_may_touch_every_queue_and_reads_from_no_exchange() -> None:
    """From RabbitMQ 4.3 on a look at a queue takes one permission on it; a write pattern that meets an exchange publishes there."""
    settings = Settings(rabbitmq_url="amqp://mq.example", retry_delays_s=tuple(range(1, 11)))
    groups = rabbitmq_queues(settings)
    queues = {name for one in groups for name in (one.source, one.dead_letters, *(retry for _, retry in one.retries))}
    exchanges = {exchange.name for exchange in rabbitmq_plan(settings).exchanges}
    for role, _, *patterns in rows("## RabbitMQ"):
        _, write, read = (re.compile(pattern.strip("`")) for pattern in patterns)
        if role in {"consume", "collect", "console"}:
            assert {name for name in queues if not (write.search(name) or read.search(name))} == set(), role
        if role != "topology":
            written = {"publish": {"incentives.events"}, "relay": {"incentives.outcomes"}}
            of_letters = {"incentives.dead-letters"} if role in {"consume", "quotes"} else set()
            assert {name for name in exchanges if write.search(name)} == written.get(role, of_letters), role
            assert not any(read.search(name) for name in exchanges), role


def test_one_login_for_all_that_serve_may_what_they_may() -> None:
    settings = Settings(rabbitmq_url="amqp://mq.example", retry_delays_s=tuple(range(1, 11)))
    plan = rabbitmq_plan(settings)
    names = {"amq.default", *(one.name for one in plan.exchanges), *(one.name for one in plan.queues)}
    serving = {"consume", "quotes", "collect", "relay", "console"}
    roles = {role: [cell.strip("`") for cell in cells] for role, _, *cells in rows("## RabbitMQ") if role in serving}
    [together] = re.findall(r"may write\n? *`(.*?)` and read `(.*?)`", PAGE)
    for kind, pattern in zip((1, 2), together, strict=True):
        wanted = {name for name in names if any(re.search(one[kind], name) for one in roles.values())}
        assert {name for name in names if re.search(pattern, name)} == wanted
