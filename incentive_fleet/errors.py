"""The one tree of errors. Every driver's errors are mapped into it at the driver's edge; nothing else decides kinds.

    FleetError
    ├── TransientError            the world is not ready; the same work succeeds later; never counts against a message
    │   ├── DatabaseUnavailable
    │   ├── DatabaseContention    deadlock or serialization failure that outlived its bounded retries
    │   ├── DatabaseUnfit         it answers, and not as this release needs: a grant, a column, a setting; a person mends it
    │   │   └── SchemaUnfit       its schema is at a revision that this release does not work with
    │   ├── BrokerUnavailable
    │   └── UnknownFormat         a later release wrote what is stored
    ├── PermanentError            the input is wrong; trying again cannot help
    │   └── Malformed             (a conflict is a verdict of the batch, not an error: see ledger/batch.py)
    ├── StatementTimedOut         one statement took too long: half as much may pass, alone it counts like a bug
    ├── Refused                   a person's request that the rules do not allow; carries a reason code
    └── SettingsError             a setting is missing or wrong

Whatever is not a FleetError is *unexpected*: a bug, or data that the database refuses. It is retried for the culprit alone and
then dead-lettered, but only while a made-up order passes (ledger/probe.py): else it is the system's and becomes DatabaseUnfit.
"""

from __future__ import annotations


class FleetError(Exception):
    """Root of every error that this product raises on purpose."""


class TransientError(FleetError):
    """The database or a broker is away, locked or slow. A retry helps; nothing was applied."""


class DatabaseUnavailable(TransientError):
    """Postgres cannot be reached, is starting up, or ended the session."""


class DatabaseContention(TransientError):
    """A deadlock, serialization failure or lock timeout persisted through the bounded retries."""


class DatabaseUnfit(TransientError):
    """Postgres refuses what every event needs: a grant, table, column or setting lacks, or a made-up order fails as well.

    A retry helps once a person has mended it; nothing was applied.
    """


class SchemaUnfit(DatabaseUnfit):
    """The schema's revision is none that this release works with; the message says what to run."""


class StatementTimedOut(FleetError):
    """A statement was cancelled, by its time limit or by a person. Nothing was applied; less at a time may pass."""


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
    """The bytes are not a valid event (rules 2.2). `detail` names the field and the value."""


class Refused(FleetError):
    """The rules do not allow what a person asked for; nothing was recorded. `reason` is a stable code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SettingsError(FleetError):
    """A setting is missing or wrong; the message names it in one sentence."""
