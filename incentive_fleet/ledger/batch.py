"""The batch: many events, one transaction, a fixed number of round trips. A batch of one is the same code.

Lock, read, classify, decide, write, commit. It never receives or acknowledges anything: consumers/core.py does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from time import perf_counter
from typing import Any, Final, assert_never

import psycopg
from psycopg import Connection

from incentive_fleet.events.codec import Event
from incentive_fleet.events.facts import NO_ORDER
from incentive_fleet.failpoints import failpoint
from incentive_fleet.incentives.booking import Posting
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.ledger.conditions import read_pools
from incentive_fleet.ledger.connection import mapped_errors, retry_contention
from incentive_fleet.ledger.effect import Became, take_effect
from incentive_fleet.ledger.locking import BEGIN_BATCH, lock_orders, lock_wallets
from incentive_fleet.ledger.needs import codes_of_no_terms, conditions, unit_of, versions_needed, wallet_needs
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import read_versions
from incentive_fleet.ledger.working_set import FactKey, Unit, WorkingSet
from incentive_fleet.ledger.writing import batch_changes, write
from incentive_fleet.measuring import Tally

EVENTS_MAX = 5_000  # of one batch; the settings' bound
NO_CAMPAIGN = "none"  # of a refusal: no campaign has that code
FEW = 64  # events that are written in one round trip; beyond, what COPY saves outweighs its waiting (benchmarks/PROFILE.md)


class Identity(Enum):
    """What an event's identities say of it before anything is decided (rules 2.3)."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Verdict(Enum):
    """What became of one event of a batch."""

    APPLIED = "applied"
    WAITING = "waiting"  # stored; takes effect when its order's placing comes, or its final basket
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    DEFERRED = "deferred"  # nothing became of it: another transaction holds its customer's wallet
    UNKNOWN_CAMPAIGN = "grant-refused:unknown-campaign"
    WRONG_CURRENCY = "grant-refused:wrong-currency"
    BUDGET_EXHAUSTED = "grant-refused:budget-exhausted"


VERDICTS: Final = {
    Became.IN_EFFECT: Verdict.APPLIED,
    Became.WAITS: Verdict.WAITING,
    Became.UNKNOWN_CAMPAIGN: Verdict.UNKNOWN_CAMPAIGN,
    Became.WRONG_CURRENCY: Verdict.WRONG_CURRENCY,
    Became.BUDGET_EXHAUSTED: Verdict.BUDGET_EXHAUSTED,
}
GRANT_REFUSED: Final = frozenset((Verdict.UNKNOWN_CAMPAIGN, Verdict.WRONG_CURRENCY, Verdict.BUDGET_EXHAUSTED))


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A verdict an event, in the order given, and the transfers that the batch booked (or, rehearsed, would book)."""

    verdicts: list[Verdict]
    postings: list[Posting]


def apply_events(
    session: Session, events: Sequence[Event], *, rehearse: bool = False, skip_locked: bool = False
) -> BatchResult:
    """Apply events in the order given, exactly once in effect, in one transaction; with `rehearse` it is rolled back.

    Where another transaction holds a wallet, all waits for it; with `skip_locked` that wallet's orders are DEFERRED instead,
    whole, and to be given again, as long as they are the smaller part.

    Idempotent: what was applied before is a DUPLICATE. Deadlocks, serialization failures and identities that another
    transaction took meanwhile are retried here, bounded and with jitter. Raises DatabaseContention or
    DatabaseUnavailable when that did not help (a retry later does) and whatever a bug raises; nothing is applied then.
    """
    if not 1 <= len(events) <= EVENTS_MAX:
        raise ValueError(f"a batch has 1 to {EVENTS_MAX} events, not {len(events)}")
    with mapped_errors():
        return retry_contention(session.tally)(_attempt, session, events, rehearse, skip_locked)


def _attempt(session: Session, events: Sequence[Event], rehearse: bool, skip_locked: bool) -> BatchResult:
    connection = session.connection
    try:
        verdicts, working = _lock_and_decide(session, connection, events, skip_locked)
        few, began = len(events) <= FEW, perf_counter()
        with connection.pipeline() if few else nullcontext():  # whose statements are answered with the last one
            write(connection, batch_changes(working), by_copy=not few)
            failpoint("before-commit")
            began = session.tally.phase("write", began)
            connection.execute("ROLLBACK" if rehearse else "COMMIT")
        session.tally.phase("commit", began)
        failpoint("after-commit")
    except BaseException:
        _roll_back(session, connection)
        raise
    if not rehearse:
        _tell(session.tally, working.writes.decisions.values())
    return BatchResult(verdicts, working.writes.postings)


def rehearse_apart(session: Session, stages: Sequence[Sequence[Event]], campaigns: CampaignSet) -> None:
    """Decide and write made-up events by terms of their own, one stage after the other in one transaction, and roll it back.

    The stages write as small batches and as large ones do, and what a COMMIT would still check is checked. Whatever fails is
    raised, mapped like the errors of `apply_events`; nothing stands then either. Numbers of identity columns are used up.
    """
    connection = session.connection
    with mapped_errors():
        try:
            begin: tuple[str, ...] = (*BEGIN_BATCH, "SAVEPOINT stage")  # its rows count as another transaction's then
            for number, events in enumerate(stages):
                _, working = _lock_and_decide(session, connection, events, False, begin, campaigns)
                with nullcontext() if number == 0 else connection.pipeline():
                    write(connection, batch_changes(working), by_copy=number == 0)
                begin = ("RELEASE SAVEPOINT stage", "SAVEPOINT stage")
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        finally:
            _roll_back(session, connection)


def _lock_and_decide(
    session: Session,
    connection: Connection[Any],
    events: Sequence[Event],
    skip_locked: bool,
    begin: Sequence[str] = BEGIN_BATCH,
    campaigns: CampaignSet | None = None,
) -> tuple[list[Verdict], WorkingSet]:
    began = perf_counter()
    session.terms, stored, orders = lock_orders(connection, session.terms, events, begin)
    campaigns = campaigns or session.terms.campaigns
    known = Known(stored.events, stored.facts)
    new = _may_be_new(events, known)
    working, deferred = WorkingSet(orders=orders), set[Unit]()
    if new:
        failpoint("after-claim")
        read_versions(connection, campaigns, versions_needed(new, orders))
        pools = read_pools(connection, codes_of_no_terms(new, campaigns), campaigns)
        needs, asked = wallet_needs(new, orders), conditions(new, orders, campaigns, pools)
        working.wallets, working.usage = lock_wallets(connection, needs, asked, skip_locked=skip_locked)
        deferred = {unit for unit, wallet in needs.of_units.items() if wallet not in working.wallets}
        if len(deferred) * 2 > len(needs.of_units):
            connection.execute("ROLLBACK")
            return _lock_and_decide(session, connection, events, skip_locked=False)
    began = session.tally.phase("lock", began)
    verdicts = decide(events, known, working, campaigns, deferred)
    session.tally.phase("decide", began)
    return verdicts, working


def _may_be_new(events: Sequence[Event], known: Known) -> list[Event]:
    """The events that are not known yet; of grants those too that repeat one, for what is refused is not remembered."""
    by_event, by_fact, new = set(known.by_event), set(known.by_fact), list[Event]()
    for event in events:
        of_event, of_fact = (event.source, event.id), (event.order_id, event.fact)
        if of_event not in by_event and of_fact not in by_fact:
            new.append(event)
            if event.order_id != NO_ORDER:
                by_event.add(of_event)
                by_fact.add(of_fact)
    return new


def _tell(tally: Tally, decisions: Iterable[Decision]) -> None:
    """Count what placings that are committed brought, by campaign."""
    for decision in decisions:
        for coupon in decision.coupons:
            tally.add("incentives_redemptions_total", coupon.campaign_id)
        for refusal in decision.refusals:
            tally.add("incentives_refusals_total", refusal.campaign_id or NO_CAMPAIGN, refusal.reason.value)


def decide(
    events: Sequence[Event],
    known: Known,
    working: WorkingSet,
    campaigns: CampaignSet,
    deferred: Collection[Unit] = (),
) -> list[Verdict]:
    """Let each new event take effect on the working set, in the order given; whole orders are deferred, and with them what has
    the identity of one of their events. No I/O."""
    verdicts: list[Verdict] = []
    put_off: set[tuple[str, str]] = set()
    for event in events:
        if deferred and (unit_of(event) in deferred or (event.source, event.id) in put_off):
            put_off.add((event.source, event.id))
            verdicts.append(Verdict.DEFERRED)
            continue
        identity = known.identity(event)
        match identity:
            case Identity.NEW:
                taken = take_effect(working, campaigns, event)
                if taken in (Became.IN_EFFECT, Became.WAITS):
                    known.remember(event)
                verdicts.append(VERDICTS[taken])
            case Identity.DUPLICATE:
                verdicts.append(Verdict.DUPLICATE)
            case Identity.CONFLICT:
                verdicts.append(Verdict.CONFLICT)
            case _:
                assert_never(identity)
    return verdicts


@dataclass(slots=True)
class Known:
    """The digests that identities had when they were met: in the ledger, and in this batch so far."""

    by_event: dict[tuple[str, str], bytes]  # (source, id)
    by_fact: dict[FactKey, bytes]

    def identity(self, event: Event) -> Identity:
        """rules 2.3: new, duplicate or conflict. A conflict on either identity wins over a duplicate on the other."""
        of_event = self.by_event.get((event.source, event.id))
        of_fact = self.by_fact.get((event.order_id, event.fact))
        if of_event is None and of_fact is None:
            return Identity.NEW
        same = of_event in (None, event.digest) and of_fact in (None, event.digest)
        return Identity.DUPLICATE if same else Identity.CONFLICT

    def remember(self, event: Event) -> None:
        """Both identities of an event that was recorded; a duplicate's own event id is not remembered."""
        self.by_event[(event.source, event.id)] = self.by_fact[(event.order_id, event.fact)] = event.digest


def _roll_back(session: Session, connection: Connection[Any]) -> None:
    """End the failed transaction; a connection that cannot even do that is closed, and the next use opens another."""
    try:
        connection.rollback()
    except psycopg.Error:
        session.close()
