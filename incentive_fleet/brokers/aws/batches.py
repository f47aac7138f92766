"""SQS calls ten entries at a time, with the entries that fail tried again. It decides nothing about messages.

Entry ids are positions, never message ids: SQS may hand out one message twice in a receive, and a batch in which two
entries share an id is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from incentive_fleet.brokers.aws.client import Blame, available, blame, error_code, tries
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.failpoints import failpoint

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

ENTRIES: Final = 10  # SQS's bound on every batch call
BATCH_BYTES: Final = 262_144  # of all messages in one send; 1 MiB on AWS since August 2025, less on what emulates it

Entry = Mapping[str, Any]


@dataclass(slots=True)
class Result:
    """What became of the entries, by their position in what was asked for."""

    done: set[int] = field(default_factory=set)
    refused: dict[int, str] = field(default_factory=dict)  # our fault, says SQS: another try is pointless
    failed: dict[int, str] = field(default_factory=dict)  # the service's fault, through all tries
    away: str | None = None  # why a whole call failed: SQS cannot be reached, or turned the call down

    def add(self, other: Result) -> None:
        """Take over the results of other entries."""
        self.done |= other.done
        self.refused |= other.refused
        self.failed |= other.failed
        self.away = self.away or other.away


@dataclass(frozen=True, slots=True)
class Receipt:
    """What names one received message to SQS."""

    url: str
    handle: str


class Batches:
    """Carries batches out, several at a time. Thread-safe."""

    def __init__(self, client: SQSClient, threads: int) -> None:
        self._client = client
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sqs-batch")

    def delete(self, receipts: Sequence[Receipt]) -> Result:
        """Delete the messages. Deleting again what is deleted has no effect."""

        def call(url: str, entries: Sequence[Entry]) -> Mapping[str, Any]:
            answer = self._client.delete_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]
            failpoint("between-settles")
            return answer

        return self._run(call, [(receipt.url, {"ReceiptHandle": receipt.handle}, 0) for receipt in receipts])

    def change_visibility(self, changes: Sequence[tuple[Receipt, int]]) -> Result:
        """Hide each message for so many seconds from now on; 0 gives it back at once."""

        def call(url: str, entries: Sequence[Entry]) -> Mapping[str, Any]:
            return self._client.change_message_visibility_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]

        return self._run(
            call,
            [(at.url, {"ReceiptHandle": at.handle, "VisibilityTimeout": seconds}, 0) for at, seconds in changes],
        )

    def send(self, messages: Sequence[tuple[str, Entry, int]]) -> Result:
        """Send (queue URL, body and attributes, size in bytes) each. A send that failed may have arrived all the same.

        A call that SQS turns down is made again for each of its entries alone, so that none suffers for another.
        """

        def call(url: str, entries: Sequence[Entry]) -> Mapping[str, Any]:
            try:
                return self._client.send_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]
            except ClientError as error:
                if blame(error) is not Blame.CONTENT:
                    raise
                if len(entries) > 1:
                    return _together([call(url, [entry]) for entry in entries])
                refusal = {
                    "Id": entries[0]["Id"],
                    "SenderFault": True,
                    "Code": error_code(error),
                    "Message": str(error),
                }
                return {"Failed": [refusal]}

        return self._run(call, messages)

    def close(self) -> None:
        """Wait for what is running, then end the threads."""
        self._pool.shutdown()

    def _run(
        self, call: Callable[[str, Sequence[Entry]], Mapping[str, Any]], wanted: Sequence[tuple[str, Entry, int]]
    ) -> Result:
        batches = list(in_tens(wanted))
        result = Result()
        # A single batch is not worth a change of threads.
        run: Iterable[Result] = (
            self._pool.map(lambda batch: _persist(call, *batch), batches)
            if len(batches) > 1
            else (_persist(call, *batch) for batch in batches)
        )
        for part in run:
            result.add(part)
        return result


def _together(answers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return {kind: [entry for answer in answers for entry in answer.get(kind, ())] for kind in ("Successful", "Failed")}


def in_tens(wanted: Sequence[tuple[str, Entry, int]]) -> Iterator[tuple[str, dict[int, Entry]]]:
    """By queue, with each entry's position as its id, in as many calls as SQS' bounds make of them."""
    by_url: dict[str, list[tuple[int, Entry, int]]] = {}
    for position, (url, entry, size) in enumerate(wanted):
        by_url.setdefault(url, []).append((position, entry, size))
    for url, entries in by_url.items():
        batch: dict[int, Entry] = {}
        total = 0
        for position, entry, size in entries:
            if batch and (len(batch) == ENTRIES or total + size > BATCH_BYTES):
                yield url, batch
                batch, total = {}, 0
            batch[position] = {"Id": str(position), **entry}
            total += size
        yield url, batch


def _persist(call: Callable[[str, Sequence[Entry]], Mapping[str, Any]], url: str, batch: dict[int, Entry]) -> Result:
    result = Result(failed=dict.fromkeys(batch, "never tried"))
    for _ in tries():
        try:
            with available():
                answer = call(url, [batch[position] for position in result.failed])
        except BrokerUnavailable as error:
            # botocore has tried twice by now; who asked pauses, and the messages come again.
            result.failed, result.away = dict.fromkeys(result.failed, str(error)), str(error)
            break
        result.failed = {}
        result.done.update(int(entry["Id"]) for entry in answer.get("Successful", ()))
        for entry in answer.get("Failed", ()):
            kind = result.refused if entry.get("SenderFault") else result.failed
            kind[int(entry["Id"])] = f"{entry.get('Code')}: {entry.get('Message', '')}"
        if not result.failed:
            break
    return result
