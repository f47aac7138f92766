"""Encryption at rest of queues and topics: with the setting's KMS key, or on queues with SQS's own. Pure; it calls no service.

A key that somebody else chose is never replaced: what was encrypted with it could become unreadable, and who may read would
change. It is told, and a person takes it away first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from incentive_fleet.brokers.aws.policies import ABSENT
from incentive_fleet.settings import AWS_MANAGED_KEYS

KEY: Final = "KmsMasterKeyId"
MANAGED: Final = "SqsManagedSseEnabled"
NOBODY_DELIVERS: Final = "a key that SNS may use: AWS's own key for SQS lets no topic deliver"


@dataclass(frozen=True, slots=True)
class Encryption:
    """What is to be set, and what a person has to see to: attribute -> (is, should be)."""

    wanted: Mapping[str, str] = field(default_factory=dict)
    foreign: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def of_queue(key: str | None, actual: Mapping[str, str]) -> Encryption:
    """`actual` are the attributes of a queue, {} of a new one. With no key of ours, one that is there is as good."""
    there = actual.get(KEY, "")
    if _bare(there).startswith(AWS_MANAGED_KEYS):
        return Encryption(foreign={KEY: (there, key or NOBODY_DELIVERS)})
    if key is not None or there:
        return _of_key(key, there)
    return Encryption() if actual.get(MANAGED, "").lower() == "true" else Encryption({MANAGED: "true"})


def of_topic(key: str | None, actual: Mapping[str, str]) -> Encryption:
    """As `of_queue`; SNS has no key of its own to switch on, so without ours a topic stays as it is."""
    return _of_key(key, actual.get(KEY, ""))


def _of_key(key: str | None, there: str) -> Encryption:
    if key is None or _bare(there) == _bare(key):
        return Encryption()
    return Encryption(foreign={KEY: (there, key)}) if there else Encryption({KEY: key})


def _bare(key: str) -> str:
    """A key's id or alias, out of its ARN or as it stands."""
    return key.rpartition(":")[2].removeprefix("key/")


def was(name: str, actual: Mapping[str, str]) -> str:
    """What an attribute of encryption is, for people."""
    return actual.get(name) or ABSENT
