"""The one tree of errors. Every driver's errors are mapped into it at the driver's edge; nothing else decides kinds.

    FleetError
    ├── TransientError            the world is not ready; the same work succeeds later; never counts against a message
    │   ├── DatabaseUnavailable
    │   ├── DatabaseContention    deadlock or serialization failure that outlived its bounded retries
    │   ├── BrokerUnavailable
    │   └── UnknownFormat         a later release wrote what is stored
    ├── PermanentError            the input is wrong; trying again cannot help
    │   └── Malformed             (a conflict is a verdict of the batch, not an error: see ledger/batch.py)
    ├── Refused                   a person's request that the rules do not allow; carries a reason code
    └── SettingsError             a setting is missing or wrong

Whatever is not a FleetError is *unexpected*: a bug, retried for the culprit alone and then dead-lettered.
"""

from __future__ import annotations


class FleetError(Exception):
    """Root of every error that this product raises on purpose."""


class TransientError(FleetError):
    """The database or a broker is away, locked or slow. A retry helps; nothing was applied."""


class DatabaseUnavailable(TransientError):
    """Postgres cannot be reached, is starting up, or ended the session."""


class DatabaseContention(TransientError):
    """A deadlock, serialization failure or timeout persisted through the bounded retries."""


class BrokerUnavailable(TransientError):
    """SNS, SQS or RabbitMQ cannot be reached or closed the connection."""


class UnknownFormat(TransientError):
    """A stored document has a format that only a later release knows. A retry helps once this one is replaced."""

    def __init__(self, what: str, found: object, known: int) -> None:
        super().__init__(f"the {what} has format {found}, and this release reads {known}: a later one wrote it")


class PermanentError(FleetError):
    """The input can never be accepted. A retry does not help.

    `reason` is a stable code for machines and filters, `detail` a sentence for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Malformed(PermanentError):
    """The bytes are not a valid event (SPEC 2). `detail` names the field and the value."""


class Refused(FleetError):
    """The rules do not allow what a person asked for; nothing was recorded. `reason` is a stable code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SettingsError(FleetError):
    """A setting is missing or wrong; the message names it in one sentence."""
