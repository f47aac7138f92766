"""Access policies of queues and topics: our statements, told from all others by their Sid. Pure; it calls no service.

A policy belongs to whoever runs the account. Ours are merged into it by their Sids, and every other statement, the
document's version and its id stay what they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

Statement = dict[str, Any]

MAY_SEND: Final = "EventsTopicMaySend"
ENCRYPTED_ALONE: Final = "IncentivesRefusePlainTransport"
VERSION: Final = "2012-10-17"
ABSENT: Final = "(absent)"


def topic_may_send(queue: str, topic: str) -> Statement:
    """SNS may deliver from the events topic, both by ARN; nothing else is let in."""
    return {
        "Sid": MAY_SEND,
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }


def refuse_plain_transport(arn: str, action: str) -> Statement:
    """Nobody reaches the queue or topic but by TLS. SNS takes no `sns:*` in a topic's policy, so the action is named."""
    return {
        "Sid": ENCRYPTED_ALONE,
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": arn,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def merged(ours: Sequence[Statement], policy: str | None) -> str:
    """The policy with our statements in the place of those with their Sids, or behind the others."""
    document = json.loads(policy) if policy else {"Version": VERSION}
    wanted = {str(statement["Sid"]): statement for statement in ours}
    kept = [wanted.pop(str(statement.get("Sid")), statement) for statement in _statements(document)]
    return json.dumps(document | {"Statement": [*kept, *wanted.values()]})


def differences(ours: Sequence[Statement], policy: str | None) -> dict[str, tuple[str, str]]:
    """Which of our statements the policy lacks or has otherwise: "Policy <Sid>" -> (is, should be)."""
    found: dict[str, tuple[str, str]] = {}
    there = {str(statement.get("Sid")): statement for statement in _statements(json.loads(policy) if policy else {})}
    for statement in ours:
        actual = there.get(statement["Sid"])
        if actual is None or _plain(actual) != _plain(statement):
            found[f"Policy {statement['Sid']}"] = (
                ABSENT if actual is None else json.dumps(actual),
                json.dumps(statement),
            )
    return found


def open_to_everybody(policy: str | None) -> list[str]:
    """The statements, by their Sids and actions, that let in whoever has an account at AWS: no principal, no condition."""
    return [
        f"{statement.get('Sid') or 'a statement without Sid'}: {statement.get('Action')}"
        for statement in _statements(json.loads(policy) if policy else {})
        if statement.get("Effect") == "Allow"
        and _plain(statement.get("Principal")) == "*"
        and not statement.get("Condition")
    ]


def _statements(document: Statement) -> list[Statement]:
    statements = document.get("Statement", [])
    return statements if isinstance(statements, list) else [statements]  # a single one may stand without a list


def _plain(value: object) -> object:
    """One writing of what a policy can write in several ways: a list of one, everybody, a boolean as text."""
    match value:
        case dict() if value in ({"AWS": "*"}, {"AWS": ["*"]}):
            return "*"
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case [single]:
            return _plain(single)
        case list():
            return sorted((_plain(item) for item in value), key=repr)
        case bool():
            return json.dumps(value)
        case _:
            return value
