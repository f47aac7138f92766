"""Answers quote requests (rules 14): deliveries in, replies out, and a disposition for each delivery.

What a core is for facts this is for questions, and the same consumer runs it: it writes nothing, retries nothing and never lets
one request hold up another. A reply goes out before its request is acknowledged, so a crash between the two answers twice.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from pydantic_core import to_json

from incentive_fleet.brokers.contract import Replies
from incentive_fleet.brokers.messages import (
    Ack,
    Answered,
    AnswerWanted,
    DeadLetter,
    Delivery,
    Disposition,
    Failure,
    Message,
)
from incentive_fleet.consumers.admission import Admission
from incentive_fleet.consumers.core import UNEXPECTED
from incentive_fleet.consumers.suspects import KILLS_WORKERS
from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import decode_quote
from incentive_fleet.events.document import BODY_BYTES_MAX, refuse_large
from incentive_fleet.events.models import QUOTE_TYPE, QuoteRequested
from incentive_fleet.events.quotes import QUOTED
from incentive_fleet.events.reasons import Reason
from incentive_fleet.events.traceparent import NAME, read_traceparent
from incentive_fleet.ledger.quoting import probe, quotes, reply
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.splitting import Probe, Trial
from incentive_fleet.logs import told_words, traceback_of
from incentive_fleet.measuring import Tally
from incentive_fleet.reply_addresses import ReplyAddresses

log = logging.getLogger(__name__)

QUOTES: Final = "incentives_quotes_total"
SECONDS: Final = "incentives_quote_seconds"
EXPIRED: Final = "quote-expired"
MALFORMED, NO_ADDRESS, NOT_ALLOWED = "malformed", "no-reply-address", "reply-not-allowed"
GIVEN_UP_FOR: Final = (
    MALFORMED,
    NO_ADDRESS,
    NOT_ALLOWED,
    Reason.WRONG_QUEUE,
    UNEXPECTED,
    KILLS_WORKERS,
)  # its dead letters
SHOWN_MAX: Final = 200  # characters of an address in a sentence
MESSAGE_CHARACTERS: Final = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """A request that is to be answered."""

    delivery: Delivery
    asked: AnswerWanted
    request: QuoteRequested
    traceparent: str | None


@dataclass(slots=True)
class Answering:
    """One thread's answers. `counts` sums what became of requests; `clock` gives seconds since 1970."""

    session: Session
    replies: Replies
    addresses: ReplyAddresses
    event_bytes_max: int = BODY_BYTES_MAX
    admission: Admission | None = None
    clock: Callable[[], float] = time.time
    counts: Counter[str] = field(default_factory=Counter)
    _held: dict[Delivery, None] = field(default_factory=dict)  # given, and not decided
    _decided: list[tuple[Delivery, Disposition]] = field(default_factory=list)
    _probe: Probe = field(init=False)

    def __post_init__(self) -> None:
        self._probe = Probe(partial(probe, self.session), tally=self.tally)

    @property
    def tally(self) -> Tally:
        """What this thread counts."""
        return self.session.tally

    @property
    def deferred(self) -> Sequence[tuple[Delivery, object]]:
        """Nothing ever is: a question waits for no other."""
        return ()

    def process(self, deliveries: Sequence[Delivery], *, carries_failures: bool) -> list[tuple[Delivery, Disposition]]:
        """Answer a batch and say what becomes of each. Questions are never retried, so whether a broker could carry a
        failure makes no difference.

        Raises TransientError when the database or the way to the reply queues is away; what was given is kept, so call it
        again without it. What expired until then is not answered any more.
        """
        self._held |= dict.fromkeys(deliveries)
        began = time.perf_counter()
        questions = [question for delivery in list(self._held) if (question := self._read(delivery)) is not None]
        self.tally.phase("decode", began)
        trial: Trial[_Question] = Trial(self._probe, self._blame)
        if questions:
            trial.split(questions, self._answer)
            trial.judge()
        return self.take_decided()

    def take_decided(self) -> list[tuple[Delivery, Disposition]]:
        """Hand out, once, what is decided; after an error of `process` that may be a part of what it was given."""
        decided, self._decided = self._decided, []
        return decided

    def undecided(self) -> list[Delivery]:
        """Hand out, once, what is not decided, for giving it back to the broker."""
        held, self._held = list(self._held), {}
        return held

    def close(self) -> None:
        """Let go of the connections. Harmless when called twice."""
        self.replies.close()
        self.session.close()

    def on_taken(self, _delivery: Delivery, disposition: Disposition) -> None:
        """Count what the broker has taken."""
        if isinstance(disposition, DeadLetter):
            self.counts[f"dead-letter:{disposition.reason}"] += 1
            self.tally.add("incentives_dead_letters_total", disposition.reason)

    def _decide(self, delivery: Delivery, disposition: Disposition) -> None:
        self._held.pop(delivery, None)
        self._decided.append((delivery, disposition))

    def _read(self, delivery: Delivery) -> _Question | None:
        """The question, if it is to be answered now. What is none is decided here, and one that is malformed told so."""
        asked = self.replies.asked(delivery)
        request: QuoteRequested | None = None
        fault, traceparent = asked.fault, None
        try:
            refuse_large(len(delivery.body), self.event_bytes_max)
            request, source, traceparent = decode_quote(delivery.body)
            if self.admission is not None:
                self.admission.check(source, QUOTE_TYPE, delivery.queue)
        except Malformed as error:
            if error.reason == Reason.WRONG_QUEUE:  # a fact, perhaps: it must not be lost, whatever stands beside it
                self._decide(delivery, DeadLetter(error.reason, error.detail))
                return None
            fault = error
        if asked.expires_at is not None and asked.expires_at <= self.clock():
            self._count(delivery, EXPIRED)
            self._decide(delivery, Ack())
        elif fault is not None and self.addresses.holds(asked.reply_to):
            self._send_fault(delivery, fault.reason, MALFORMED)
            self._decide(delivery, Ack())
        elif (refusal := self._refusal(asked, fault)) is not None:
            self._decide(delivery, refusal)
        else:
            assert request is not None
            return _Question(delivery, asked, request, traceparent or _traced_by(delivery))
        return None

    def _refusal(self, asked: AnswerWanted, fault: Malformed | None) -> DeadLetter | None:
        """Why nobody can be answered."""
        if fault is not None:
            return DeadLetter(MALFORMED, f"{fault.reason}: {fault.detail}")
        if not asked.reply_to:
            return DeadLetter(NO_ADDRESS, "the request names no queue to reply to")
        if not self.addresses.holds(asked.reply_to):
            named = repr(asked.reply_to[:SHOWN_MAX])
            return DeadLetter(NOT_ALLOWED, f"reply_to is {named}: INCENTIVES_ALLOWED_REPLY_ADDRESSES does not allow it")
        return None

    def _answer(self, questions: Sequence[_Question]) -> None:
        began = time.perf_counter()
        answers = quotes(self.session, [question.request for question in questions])
        began = self.tally.phase("decide", began)
        messages = [_message(data, question) for data, question in zip(answers, questions, strict=True)]
        results = self.replies.send([(q.delivery, message) for q, message in zip(questions, messages, strict=True)])
        self.tally.phase("reply", began)
        now = self.clock()
        for question, result in zip(questions, results, strict=True):
            if result is Answered.SENT:
                took_s = max(0.0, now - question.asked.arrived_at)
                self.tally.observe(SECONDS, question.delivery.transport, value=took_s)
            self._count(question.delivery, result)
            self._decide(question.delivery, Ack())

    def _send_fault(self, delivery: Delivery, reason: str, counted: str) -> None:
        [result] = self.replies.send([(delivery, Message(json.dumps({"error": reason}).encode(), None, None))])
        self._count(delivery, counted if result is Answered.SENT else result)

    def _blame(self, culprits: Sequence[tuple[_Question, Exception]]) -> None:
        """Whoever asked is told at once, for a checkout cannot wait for a mended release; operators find it as a dead letter."""
        now = datetime.now(UTC)
        for question, error in culprits:
            name = f"{type(error).__module__}.{type(error).__qualname__}"
            message = str(error)[:MESSAGE_CHARACTERS]
            failure = Failure(1, name, message, traceback_of(error), now, now, socket.gethostname())
            extra = {"queue": question.delivery.queue, "error_class": name, "error": told_words(error)}
            log.error("unexpected error", extra=extra | self._probe.traces.told(error))
            self._send_fault(question.delivery, UNEXPECTED, UNEXPECTED)
            self._decide(question.delivery, DeadLetter(UNEXPECTED, f"{name}: {message}", failure))

    def _count(self, delivery: Delivery, result: str) -> None:
        self.counts[str(result)] += 1
        self.tally.add(QUOTES, delivery.transport, str(result))


def _message(data: dict[str, Any], question: _Question) -> Message:
    document = reply(data, question.traceparent)
    return Message(to_json(document), QUOTED, str(document["id"]))


def _traced_by(delivery: Delivery) -> str | None:
    header = delivery.headers.get(NAME)
    return header if header is not None and read_traceparent(header) else None
