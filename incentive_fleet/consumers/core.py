"""The batch core: deliveries in, a disposition for each out. It decides what rules 11 says; it never talks to a broker.

decode -> apply in one transaction -> dispositions
             └─ an error: ledger/splitting.py finds the culprits and asks whether it is the system's; the rest commits

What was given is the core's until its disposition is handed out: decided (`_decided`) or not (`deferred`, `_unread`). A failure in
the middle loses neither and repeats neither.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from time import perf_counter, time
from typing import Final, assert_never

from incentive_fleet.brokers.messages import Ack, DeadLetter, Delivery, Disposition, Failure, Retry
from incentive_fleet.consumers.admission import Admission, admitted
from incentive_fleet.consumers.latency import tell_latencies
from incentive_fleet.consumers.suspects import KILLS_WORKERS
from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import Event
from incentive_fleet.events.document import BODY_BYTES_MAX, refuse_large
from incentive_fleet.events.foreign import binary_mode
from incentive_fleet.events.models import CreditGrantRequested
from incentive_fleet.events.reasons import Reason
from incentive_fleet.events.traceparent import NAME, read_traceparent
from incentive_fleet.failpoints import failpoint
from incentive_fleet.ledger.attempts import FailedMessage, forget_attempts, record_attempt
from incentive_fleet.ledger.batch import GRANT_REFUSED, BatchResult, Verdict, apply_events
from incentive_fleet.ledger.probe import probe
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.splitting import Probe, Trial
from incentive_fleet.logs import told_words, traceback_of
from incentive_fleet.measuring import BATCH_EVENTS, Tally

log = logging.getLogger(__name__)

CONFLICT = "conflict"
UNEXPECTED = "unexpected-error"
# For which a consumer makes a dead letter of an event.
GIVEN_UP_FOR: Final = (*Reason, CONFLICT, *(verdict.value for verdict in GRANT_REFUSED), UNEXPECTED, KILLS_WORKERS)
NO_CLOUD_EVENT = frozenset({Reason.NOT_A_CLOUD_EVENT, Reason.NOT_JSON, Reason.NOT_UTF8})
DEFERRED_MAX = 8  # times that an event is deferred; then the batch waits for whoever holds its wallet
MESSAGE_CHARACTERS = 2_000  # of an error; some drivers put the whole row into it
UNFORGOTTEN_MAX = 10_000  # counts that could not be dropped yet; beyond, they stay in the table and harm nobody
HOST = socket.gethostname()

Failed = tuple[Delivery, Event | None]  # None: even the codec failed


@dataclass(slots=True)
class Core:
    """One thread's batch core. `counts` sums what became of deliveries: verdicts, and by `on_taken` dead letters by
    reason, and retries.

    With `skip_locked`, events whose wallet another batch holds just then are deferred to the next one, and nobody waits.
    """

    session: Session
    retry_delays_s: Sequence[float]
    clock: Callable[[], datetime]
    skip_locked: bool = False
    event_bytes_max: int = BODY_BYTES_MAX  # a larger body is not even decoded
    admission: Admission | None = None  # which sources each queue takes; None: all
    counts: Counter[str] = field(default_factory=Counter)
    deferred: list[tuple[Delivery, Event]] = field(default_factory=list)
    _unread: list[Delivery] = field(
        default_factory=list
    )  # the codec failed on them, and nobody knows yet whose fault it is
    _decided: list[tuple[Delivery, Disposition]] = field(default_factory=list)
    _unforgotten: list[tuple[str, str]] = field(default_factory=list)
    _probe: Probe = field(init=False)
    _oldest_deferred: int = 0  # how many times in a row it was the same

    def __post_init__(self) -> None:
        self._probe = Probe(partial(probe, self.session), tally=self.tally)

    @property
    def tally(self) -> Tally:
        """What this thread counts."""
        return self.session.tally

    def process(self, deliveries: Sequence[Delivery], *, carries_failures: bool) -> list[tuple[Delivery, Disposition]]:
        """Apply a batch, exactly once in effect, and say what becomes of each delivery that is not deferred.

        What was deferred before comes first, and `deliveries` may be empty then. Raises TransientError when the database
        is away, contended or unfit, and counts that against no message: the core keeps what it was given, so call it again
        without it. `take_decided` and `undecided` hand it out to whoever will not.
        """
        before, began = self.deferred, perf_counter()
        readable, unreadable = self._decode([*self._unread, *deliveries], carries_failures)
        self.tally.phase("decode", began)
        batch = [*before, *readable]
        self.deferred, self._unread = batch, [delivery for delivery, _ in unreadable]
        later: list[tuple[Delivery, Event]] = []
        failpoint("after-decode")
        trial: Trial[Failed] = Trial(self._probe, partial(self._blame, carries_failures))
        try:
            for delivery, error in unreadable:
                trial.suspect((delivery, None), error)
            if batch:
                trial.split(batch, partial(self._apply, later, carries_failures))
            trial.judge()
        except BaseException:
            self._drop_decided()
            raise
        self._keep(before, later)
        self._forget()
        return self.take_decided()

    def take_decided(self) -> list[tuple[Delivery, Disposition]]:
        """Hand out, once, what is decided; after an error of `process` that may be a part of what it was given."""
        decided, self._decided = self._decided, []
        return decided

    def undecided(self) -> list[Delivery]:
        """Hand out, once, what is not decided, for giving it back to the broker."""
        held = [*self._unread, *(delivery for delivery, _ in self.deferred)]
        self._unread, self.deferred = [], []
        return held

    def close(self) -> None:
        """Let go of the connection. Harmless when called twice."""
        self.session.close()

    def _decode(
        self, deliveries: Iterable[Delivery], carries_failures: bool
    ) -> tuple[list[tuple[Delivery, Event]], list[tuple[Delivery, Exception]]]:
        """What can be read, and what a bug keeps from being read; what is malformed or not admitted is decided at once."""
        readable: list[tuple[Delivery, Event]] = []
        unreadable: list[tuple[Delivery, Exception]] = []
        for delivery in deliveries:
            try:
                refuse_large(len(delivery.body), self.event_bytes_max)
                event = admitted(delivery.body, delivery.queue, self.admission)
                if event.traceparent is None and NAME in delivery.headers:
                    event = _traced_by(delivery.headers[NAME], event)
                readable.append((delivery, event))
            except Malformed as error:
                self._decide(delivery, DeadLetter(error.reason, _detail(error, delivery)), carries_failures)
            except Exception as error:
                unreadable.append((delivery, error))
        return readable, unreadable

    def _apply(
        self, later: list[tuple[Delivery, Event]], carries_failures: bool, batch: Sequence[tuple[Delivery, Event]]
    ) -> None:
        skip_locked = self.skip_locked and self._oldest_deferred < DEFERRED_MAX
        result = apply_events(self.session, [event for _, event in batch], skip_locked=skip_locked)
        self._tell_batch(batch, result)
        for (delivery, event), verdict in zip(batch, result.verdicts, strict=True):
            if verdict is Verdict.DEFERRED:
                later.append((delivery, event))
                continue
            self._decide(delivery, _disposition(event, verdict), carries_failures)

    def _tell_batch(self, batch: Sequence[tuple[Delivery, Event]], result: BatchResult) -> None:
        """Count a batch that is committed."""
        verdicts = result.verdicts
        handled = [one for one, verdict in zip(batch, verdicts, strict=True) if verdict is not Verdict.DEFERRED]
        tell_latencies(self.tally, handled, time())
        if (traced := self.tally.batch) is not None:
            traced.events += len(batch)
            traced.traceparents += [event.traceparent for _, event in batch if event.traceparent]
        self.tally.observe(BATCH_EVENTS, value=len(verdicts))
        for verdict in Verdict:
            if events := verdicts.count(verdict):
                self.tally.add("incentives_events_total", verdict.value, by=events)
                if verdict is not Verdict.DEFERRED:
                    self.counts[verdict.value] += events

    def _decide(self, delivery: Delivery, disposition: Disposition, carries_failures: bool) -> None:
        self._decided.append((delivery, disposition))
        if isinstance(disposition, Retry):
            return
        # One that came more than once and is done with may have a count in Postgres that nobody needs now.
        if not carries_failures and delivery.receive_count > 1 and len(self._unforgotten) < UNFORGOTTEN_MAX:
            self._unforgotten.append((delivery.queue, delivery.message_id))

    def _drop_decided(self) -> None:
        decided = {id(delivery) for delivery, _ in self._decided}
        self._unread = [delivery for delivery in self._unread if id(delivery) not in decided]
        self.deferred = [(delivery, event) for delivery, event in self.deferred if id(delivery) not in decided]

    def _keep(self, before: list[tuple[Delivery, Event]], later: list[tuple[Delivery, Event]]) -> None:
        same = bool(later and before) and later[0][0] is before[0][0]
        self._oldest_deferred = self._oldest_deferred + 1 if same else 0
        self.deferred, self._unread = later, []

    def _forget(self) -> None:
        if self._unforgotten:
            forget_attempts(self.session.connection, self._unforgotten)
            self._unforgotten = []

    def _blame(self, carries_failures: bool, culprits: Sequence[tuple[Failed, Exception]]) -> None:
        """Count it against each, and say what becomes of them: a retry, or the dead letters in the end."""
        told: dict[tuple[str, str, int], tuple[Delivery, Failure, Exception]] = {}
        number: Counter[tuple[str, str, int]] = Counter()
        try:
            for (delivery, _), error in culprits:
                failure = self._failure(delivery, error, carries_failures)
                self._decide(delivery, self._fate(failure), carries_failures)
                kind = (delivery.queue, failure.error_class, failure.attempts)
                number[kind] += 1
                told.setdefault(kind, (delivery, failure, error))
        finally:
            for kind, (delivery, failure, error) in told.items():
                self._tell(delivery, failure, error, number[kind])

    def _tell(self, delivery: Delivery, failure: Failure, error: Exception, events: int) -> None:
        """One line a kind, and its traceback once: a thousand culprits are no thousand lines."""
        extra = {
            "queue": delivery.queue,
            "message_id": delivery.message_id,
            "events": events,
            "attempts": failure.attempts,
            "error_class": failure.error_class,
            "error": told_words(error),
        }
        log.error("unexpected error", extra=extra | self._probe.traces.told(error))

    def _fate(self, failure: Failure) -> Disposition:
        if failure.attempts > len(self.retry_delays_s):
            detail = f"{failure.error_class}: {failure.message} (after {failure.attempts} attempts)"
            return DeadLetter(UNEXPECTED, detail, failure)
        return Retry(self.retry_delays_s[failure.attempts - 1], failure)

    def _failure(self, delivery: Delivery, error: Exception, carries_failures: bool) -> Failure:
        now, name = self.clock(), f"{type(error).__module__}.{type(error).__qualname__}"
        message, trace = str(error)[:MESSAGE_CHARACTERS], traceback_of(error)
        if carries_failures:
            before = delivery.failure
            attempts, first_at = (before.attempts + 1, before.first_at) if before else (1, now)
        else:
            failed = FailedMessage(delivery.queue, delivery.message_id, name, message, trace, HOST)
            counted = record_attempt(self.session.connection, failed, now)
            attempts, first_at = counted.attempts, counted.first_at
        return Failure(attempts, name, message, trace, first_at, now, HOST)

    def on_taken(self, _delivery: Delivery, disposition: Disposition) -> None:
        """Count what the broker has taken: a dead letter or retry that it did not take does not exist."""
        if isinstance(disposition, DeadLetter):
            self.counts[f"dead-letter:{disposition.reason}"] += 1
            self.tally.add("incentives_dead_letters_total", disposition.reason)
        elif isinstance(disposition, Retry):
            self.counts["retry"] += 1


def _traced_by(header: str, event: Event) -> Event:
    """With the trace that the message tells and the event does not. Neither its identity nor its digest knows of it."""
    return event._replace(traceparent=header) if read_traceparent(header) else event


def _detail(error: Malformed, delivery: Delivery) -> str:
    """What is the matter, and what the message is where its headers tell more than its body."""
    if error.reason not in NO_CLOUD_EVENT:
        return error.detail
    told = binary_mode(delivery.headers)
    return f"{error.detail}; {told}" if told else error.detail


def _disposition(event: Event, verdict: Verdict) -> Disposition:
    match verdict:
        case Verdict.APPLIED | Verdict.WAITING | Verdict.DUPLICATE:
            return Ack()
        case Verdict.CONFLICT:
            return DeadLetter(CONFLICT, conflict_detail(event))
        case Verdict.UNKNOWN_CAMPAIGN | Verdict.WRONG_CURRENCY | Verdict.BUDGET_EXHAUSTED:
            return DeadLetter(verdict.value, refusal_detail(event))
        case Verdict.DEFERRED:
            raise AssertionError("what is deferred has no disposition yet")
        case _:
            assert_never(verdict)


def refusal_detail(event: Event) -> str:
    """A sentence for the person who finds a refused grant."""
    data = event.data
    assert isinstance(data, CreditGrantRequested), "nothing else is refused"
    asked = f"{data.amount} {data.currency} for customer {data.customer_id!r} under campaign {data.campaign_id!r}"
    return f"grant {data.grant_key!r}: {asked}; it can be replayed once its cause is gone"


def conflict_detail(event: Event) -> str:
    """A sentence for the person who finds the conflict."""
    return (
        f"event {event.id!r} of {event.source!r} ({event.type}, order {event.order_id!r}): its identity is taken by"
        " different content"
    )
