"""The batch core: deliveries in, an outcome for each out. It decides what SPEC 11 says; it never talks to a broker.

decode -> apply in one transaction -> outcomes
             └─ an unexpected error: the batch is split until the culprit stands alone; the rest commits
"""

from __future__ import annotations

import logging
import socket
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never

from incentive_fleet.brokers.contract import Ack, DeadLetter, Delivery, Failure, Outcome, Retry
from incentive_fleet.errors import FleetError, Malformed
from incentive_fleet.events.codec import Event, decode
from incentive_fleet.events.foreign import binary_mode
from incentive_fleet.events.reasons import Reason
from incentive_fleet.faults import reach
from incentive_fleet.ledger.attempts import forget_attempts, record_attempt
from incentive_fleet.ledger.batch import Verdict, apply_events
from incentive_fleet.ledger.session import Session

log = logging.getLogger(__name__)

CONFLICT = "conflict"
UNEXPECTED = "unexpected-error"
NO_CLOUD_EVENT = frozenset({Reason.NOT_A_CLOUD_EVENT, Reason.NOT_JSON, Reason.NOT_UTF8})
PUT_OFF_MAX = 8  # times that an event is put off; then the batch waits for whoever holds its wallet
HOST = socket.gethostname()


@dataclass(slots=True)
class Core:
    """One thread's batch core. `counts` sums what became of deliveries: verdicts, dead letters by reason, retries.

    Unless it is `patient`, events whose wallet another batch holds just then are kept for the next one, and nobody waits.
    """

    session: Session
    retry_delays_s: Sequence[float]
    clock: Callable[[], datetime]
    patient: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    put_off: list[tuple[Delivery, Event]] = field(default_factory=list)
    _oldest_put_off: int = 0  # how many times in a row it was the same

    def process(self, deliveries: Sequence[Delivery], *, carries_failures: bool) -> list[tuple[Delivery, Outcome]]:
        """Apply a batch, exactly once in effect, and say what becomes of each delivery that is not put off.

        What was put off before comes first, and `deliveries` may be empty then. Raises TransientError when the database
        is away or contended: nothing is lost, and the same call again is right, for what was committed meanwhile is a
        duplicate then.
        """
        outcomes: list[tuple[Delivery, Outcome]] = []
        decoded = list(self.put_off)
        later: list[tuple[Delivery, Event]] = []
        for delivery in deliveries:
            try:
                decoded.append((delivery, decode(delivery.body)))
            except Malformed as error:
                outcomes.append((delivery, DeadLetter(error.reason, _detail(error, delivery))))
            except Exception as error:
                outcomes.append((delivery, self._failed(delivery, error, carries_failures)))
        reach("after-decode")
        if decoded:
            self._apply(decoded, outcomes, later, carries_failures)
        self._keep(later)
        self._forget(outcomes, carries_failures)
        for _, outcome in outcomes:
            self._count(outcome)
        return outcomes

    def _apply(
        self,
        batch: list[tuple[Delivery, Event]],
        outcomes: list[tuple[Delivery, Outcome]],
        later: list[tuple[Delivery, Event]],
        carries_failures: bool,
    ) -> None:
        patient = self.patient or self._oldest_put_off >= PUT_OFF_MAX
        try:
            result = apply_events(self.session, [event for _, event in batch], patient=patient)
        except FleetError:
            raise
        except Exception as error:
            if len(batch) == 1:
                delivery = batch[0][0]
                outcomes.append((delivery, self._failed(delivery, error, carries_failures)))
                return
            half = len(batch) // 2
            self._apply(batch[:half], outcomes, later, carries_failures)
            self._apply(batch[half:], outcomes, later, carries_failures)
            return
        for (delivery, event), verdict in zip(batch, result.verdicts, strict=True):
            if verdict is Verdict.PUT_OFF:
                later.append((delivery, event))
                continue
            self.counts[verdict.value] += 1
            outcomes.append((delivery, _outcome(event, verdict)))

    def _keep(self, later: list[tuple[Delivery, Event]]) -> None:
        same = bool(later and self.put_off) and later[0][0] is self.put_off[0][0]
        self._oldest_put_off = self._oldest_put_off + 1 if same else 0
        self.put_off = later

    def _failed(self, delivery: Delivery, error: Exception, carries_failures: bool) -> Outcome:
        failure = self._failure(delivery, error, carries_failures)
        log.error(
            "unexpected error",
            extra={
                "queue": delivery.queue,
                "message_id": delivery.message_id,
                "attempts": failure.attempts,
                "error_class": failure.error_class,
                "error": failure.message,
                "traceback": failure.traceback,
            },
        )
        if failure.attempts > len(self.retry_delays_s):
            detail = f"{failure.error_class}: {failure.message} (after {failure.attempts} attempts)"
            return DeadLetter(UNEXPECTED, detail, failure)
        return Retry(self.retry_delays_s[failure.attempts - 1], failure)

    def _failure(self, delivery: Delivery, error: Exception, carries_failures: bool) -> Failure:
        now, name = self.clock(), f"{type(error).__module__}.{type(error).__qualname__}"
        trace = "".join(traceback.format_exception(error))
        if carries_failures:
            before = delivery.failure
            attempts, first_at = (before.attempts + 1, before.first_at) if before else (1, now)
        else:
            counted = record_attempt(
                self.session.connection,
                queue=delivery.queue,
                message_id=delivery.message_id,
                error_class=name,
                message=str(error),
                traceback=trace,
                host=HOST,
                now=now,
            )
            attempts, first_at = counted.attempts, counted.first_at
        return Failure(attempts, name, str(error), trace, first_at, now, HOST)

    def _forget(self, outcomes: list[tuple[Delivery, Outcome]], carries_failures: bool) -> None:
        """Messages that came more than once and are done with may have a count in Postgres that nobody needs now."""
        if carries_failures:
            return
        done = [(d.queue, d.message_id) for d, o in outcomes if not isinstance(o, Retry) and d.receive_count > 1]
        if done:
            forget_attempts(self.session.connection, done)

    def _count(self, outcome: Outcome) -> None:
        if isinstance(outcome, DeadLetter):
            self.counts[f"dead-letter:{outcome.reason}"] += 1
        elif isinstance(outcome, Retry):
            self.counts["retry"] += 1


def _detail(error: Malformed, delivery: Delivery) -> str:
    """What is the matter, and what the message is where its headers tell more than its body."""
    if error.reason not in NO_CLOUD_EVENT:
        return error.detail
    told = binary_mode(delivery.headers)
    return f"{error.detail}; {told}" if told else error.detail


def _outcome(event: Event, verdict: Verdict) -> Outcome:
    match verdict:
        case Verdict.APPLIED | Verdict.WAITING | Verdict.DUPLICATE:
            return Ack()
        case Verdict.CONFLICT:
            return DeadLetter(CONFLICT, conflict_detail(event))
        case Verdict.PUT_OFF:
            raise AssertionError("what is put off has no outcome yet")
        case _:
            assert_never(verdict)


def conflict_detail(event: Event) -> str:
    """A sentence for the person who finds the conflict."""
    return (
        f"event {event.id!r} of {event.source!r} ({event.type}, order {event.order_id!r}): its identity is taken by"
        " different content"
    )
