"""Each alert's cause, for real, and its end by what its runbook says. A scene waits for the pager, not for a clock.

Scenes of one act disturb each other in nothing and run at once; acts follow each other.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

import psycopg

from tests.contract.brokers_under_test import eventually
from tests.dead_letter_world import cloud_event, order
from tests.domain import terms
from tests.observe.site import BUDGET, CONNECTIONS, ONE_COUPON, PATIENCE_S, Site

Scene = Callable[[Site], None]
REFUNDED = "order-refunded.v1"
POISON = 60
BACKLOG = 6_000
LATE_S = 65  # more than the minute beyond which an event is late


def plain(number: int | str, **changed: object) -> bytes:
    """An order that spends nothing of a campaign."""
    return order(number, coupons=[], **changed)


def refund(number: int | str, **changed: object) -> bytes:
    """Of all of an order, if not told of what."""
    data = {"refund_id": "r-1", "order_id": f"o-{number}", "currency": "EUR", "refunded_at": "2026-01-12T12:00:00Z"}
    return cloud_event(f"r-{number}", REFUNDED, {**data, **changed})


def budget_nearly_spent(site: Site) -> None:
    """Beside it a campaign has ended, whose budget is spent: for that nobody is called."""
    site.publish(order("last", coupons=["ENDED"]))
    site.publish(*(order(f"budget-{number}") for number in range(BUDGET // ONE_COUPON)))
    site.rings("IncentivesBudgetNearlySpent", "campaign k has spent 100% of its budget")
    more = site.folder / "more.toml"
    more.write_text(terms("coupon", "k", code="K", amount=ONE_COUPON, budget=100 * BUDGET), encoding="utf-8")
    site.type("campaigns", "load", more)
    site.clears("IncentivesBudgetNearlySpent")


def a_refund_waits_for_its_order(site: Site) -> None:
    site.publish(refund("late"), type_=REFUNDED)
    site.until("SELECT count(*) = 1 FROM waiting WHERE order_id = 'o-late'")
    site.back_dated("waiting", "since", 25, "order_id = 'o-late'")
    site.rings("IncentivesFactsWaitLong", "since 1d 1h")
    [fact] = site.type("waiting", "--older-than-hours", "24", "--format", "json").document["waiting"]
    assert fact["order_id"] == "o-late"
    site.publish(plain("late"))  # the sender sends what it had not
    site.clears("IncentivesFactsWaitLong")


def an_order_is_odd(site: Site) -> None:
    site.publish(plain("odd"))
    site.publish(refund("odd", lines=[{"line_id": "99", "quantity": 1, "reason": "returned"}]), type_=REFUNDED)
    site.rings("IncentivesAnomaliesOpen")
    for odd in site.type("anomalies", "--format", "json").document["anomalies"]:
        which = odd["order_id"], odd["reason"], odd["subject"]
        site.type("anomalies", "resolve", *which, "--reason", "the till sent it twice")
    site.clears("IncentivesAnomaliesOpen")


def the_relay_is_killed(site: Site) -> None:
    assert site.relay.end(signal.SIGKILL) == -signal.SIGKILL
    site.publish(plain("unheard"))
    site.until("SELECT count(*) > 0 FROM outbox_unpublished")
    site.back_dated("outbox", "created_at", 1, "outbox_id = (SELECT min(outbox_id) FROM outbox_unpublished)")
    site.rings("IncentivesProcessDown", "relay does not answer")
    site.rings("IncentivesOutboxStuck", "an outcome for rabbitmq waits since 1h")
    site.type("relay", "--until-idle")
    site.clears("IncentivesOutboxStuck")
    site.relay.start()
    site.clears("IncentivesProcessDown")


def a_sender_sends_nonsense(site: Site) -> None:
    site.publish(*(b"no event %d" % number for number in range(POISON)))
    site.rings("IncentivesDeadLettersMany", "dead letters in ten minutes: not-json")
    site.until(f"SELECT count(*) = {POISON} FROM dead_letters WHERE reason = 'not-json' AND status = 'open'")
    site.type("dlq", "discard", *_group(site, "not-json"), "--because", "the sender sends it again", "--yes")
    site.clears("IncentivesDeadLettersMany")


def a_letter_is_forgotten(site: Site) -> None:
    site.publish(plain("forgotten", currency="UKP"))
    site.until("SELECT count(*) = 1 FROM dead_letters WHERE reason = 'unknown-currency'")
    site.back_dated("dead_letters", "first_seen", 5, "reason = 'unknown-currency'")
    site.rings("IncentivesDeadLettersOld", "a dead letter is open since 5h")
    chosen = (*_group(site, "unknown-currency"), "--because", "INC-7", "--yes")
    site.type("dlq", "edit", "--set", "data.currency=EUR", *chosen)
    site.type("dlq", "replay", *chosen)
    site.clears("IncentivesDeadLettersOld")
    assert site.ask("SELECT count(*) FROM decisions WHERE order_id = 'o-forgotten'") == [(1,)]


def a_letter_lies_for_a_day(site: Site) -> None:
    site.publish(plain("old", placed_at="yesterday"))
    site.until("SELECT count(*) = 1 FROM dead_letters WHERE reason = 'invalid-time'")
    site.back_dated("dead_letters", "first_seen", 25, "reason = 'invalid-time'")
    site.rings("IncentivesDeadLetterBudgetFast", "a dead letter is older than a day")
    site.rings("IncentivesDeadLetterBudgetSlow", "a dead letter was older than a day")
    site.type("dlq", "discard", *_group(site, "invalid-time"), "--because", "INC-8", "--yes")
    site.clears("IncentivesDeadLetterBudgetFast")
    site.clears("IncentivesDeadLetterBudgetSlow")


def nobody_verifies(site: Site) -> None:
    site.rings("IncentivesVerifyBudgetFast", "the ledger's last good verification is older than 26 hours")
    site.rings("IncentivesVerifyBudgetSlow", "the last good verification was older than 26 hours")
    site.type("ledger", "verify")
    site.clears("IncentivesVerifyBudgetFast")
    site.clears("IncentivesVerifyBudgetSlow")


def checkouts_leave_before_the_answer(site: Site) -> None:
    unheard = "reach no checkout"
    site.until_it_rings(lambda: site.ask_for_a_quote("amq.gen-gone"), "IncentivesQuotesUnanswered", unheard)
    site.clears("IncentivesQuotesUnanswered")


def somebody_gives_credit_past_the_ledger(site: Site) -> None:
    [(customer,)] = site.ask("SELECT min(customer_id) FROM wallets")
    wallet = f"WHERE customer_id = '{customer}'"
    site.tampered(f"UPDATE wallets SET balance = balance + 100 {wallet}")
    site.type("ledger", "verify", code=1)
    site.rings("IncentivesLedgerUnsound", "the last verify of the ledger found what must not be")
    site.tampered(f"UPDATE wallets SET balance = balance - 100 {wallet}")
    site.type("ledger", "verify")
    site.clears("IncentivesLedgerUnsound")


def _group(site: Site, reason: str) -> tuple[str, str]:
    """The one group of letters given up for that reason, as a filter."""
    groups = site.type("dlq", "groups", "--format", "json").document["groups"]
    [number] = [group["group"] for group in groups if group["reason"] == reason]
    return "--group", str(number)


def workers_are_killed(site: Site) -> None:
    """As the kernel ends a process that takes too much memory, again and again, until the fleet waits before it tries anew."""
    spared, _ = _both_workers(site)
    until = time.monotonic() + PATIENCE_S
    while not {"IncentivesWorkersMissing", "IncentivesWorkersDying"} <= site.prometheus.firing():
        assert time.monotonic() < until, "workers were killed in vain"
        for pid in site.consume.workers():
            if pid != spared:
                with suppress(ProcessLookupError):  # it ended by itself
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    site.rings("IncentivesWorkersMissing", "consume has fewer workers than it should have")
    site.rings("IncentivesWorkersDying", "consume started workers again")
    site.clears("IncentivesWorkersMissing")  # by itself: what killed them has stopped
    site.clears("IncentivesWorkersDying")


def connections_are_taken(site: Site) -> None:
    with ExitStack() as held:
        while (
            site.ask("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")[0][0]
            < 0.95 * CONNECTIONS
        ):
            held.enter_context(psycopg.connect(site.url, application_name="somebody's report"))
        site.rings("IncentivesDatabaseFull", "of the database's connections are taken")
    site.clears("IncentivesDatabaseFull")


def consumers_are_stuck_and_then_too_slow(site: Site) -> None:
    """Workers stop in the middle of their work, and somebody's transaction keeps the wallets from being read; when they go on,
    it is by fits and starts, with more than a minute's backlog."""
    workers = _both_workers(site)
    _signal(workers, signal.SIGSTOP)
    site.publish(*(plain(f"stuck-{number}") for number in range(BACKLOG)))
    late_at = time.monotonic() + LATE_S
    with psycopg.connect(site.url) as somebody:
        somebody.execute("LOCK TABLE wallets IN ACCESS EXCLUSIVE MODE")
        site.rings("IncentivesReadingDown", "cannot be read, so their alerts are silent")
        site.rings("IncentivesQueueStuck", "nothing is taken from it")
    site.clears("IncentivesReadingDown")
    time.sleep(max(0.0, late_at - time.monotonic()))  # lateness is time, which nothing else brings about
    _starve(site, {"IncentivesLatencyHigh", "IncentivesLatencyBudgetFast", "IncentivesLatencyBudgetSlow"})
    site.rings("IncentivesLatencyHigh", "the slowest of a hundred events is booked")
    site.rings("IncentivesLatencyBudgetFast", "the month's allowance goes fast")
    site.rings("IncentivesLatencyBudgetSlow", "of which 1 % may be")
    site.consume.end(signal.SIGTERM)  # with exit code 1: workers that hear no signal had to be killed
    site.consume.start()
    site.clears("IncentivesQueueStuck")
    for alert in ("IncentivesLatencyHigh", "IncentivesLatencyBudgetFast", "IncentivesLatencyBudgetSlow"):
        site.clears(alert)  # by itself: the backlog is drained


def _both_workers(site: Site) -> list[int]:
    found: list[int] = eventually(lambda: len(now := site.consume.workers()) == 2 and now, PATIENCE_S)
    return found


def _signal(workers: Iterable[int], number: signal.Signals) -> None:
    for pid in workers:
        with suppress(ProcessLookupError):  # it ended, and another takes its place
            os.kill(pid, number)


def _starve(site: Site, until: set[str]) -> None:
    """Let the workers run for a moment now and then, until these alerts fire."""
    give_up = time.monotonic() + PATIENCE_S
    while not until <= site.prometheus.firing():
        assert time.monotonic() < give_up, f"{until - site.prometheus.firing()} did not fire"
        _signal(site.consume.workers(), signal.SIGCONT)
        time.sleep(0.5)
        _signal(site.consume.workers(), signal.SIGSTOP)
        time.sleep(1.5)


def postgres_is_away_and_comes_back_as_a_standby(site: Site) -> None:
    site.postgres.stop()
    site.publish(plain("while-away"))
    waits = "consuming waits: database-unavailable", "relay to rabbitmq waits: database-unavailable"
    site.until_it_rings(site.look, "IncentivesConsoleFails", "of the answers of pages are errors of ours")
    site.rings("IncentivesPaused", *waits)
    eventually(lambda: "IncentivesReadingDown" in site.prometheus.firing(), PATIENCE_S)
    assert "IncentivesReadingDown" not in site.pager.ringing(), "what a pause explains was told again"
    with _demoted(site):
        site.rings("IncentivesDatabaseReadOnly")
    site.clears("IncentivesDatabaseReadOnly")
    site.clears("IncentivesPaused")
    site.clears("IncentivesConsoleFails")
    site.until("SELECT count(*) = 1 FROM decisions WHERE order_id = 'o-while-away'")


@contextmanager
def _demoted(site: Site) -> Iterator[None]:
    """The server that was stopped comes up as a standby that nobody feeds, and is promoted in the end."""
    data = site.postgres.folder / "data"
    signal_file = data / "standby.signal"
    signal_file.touch()
    os.chown(signal_file, data.stat().st_uid, data.stat().st_gid)
    site.postgres.start()
    try:
        yield
    finally:
        with psycopg.connect(site.postgres.url("postgres"), autocommit=True) as owner:
            owner.execute("SELECT pg_promote()")


# By the alerts that each shows. The acts of the short form come first.
QUIET: Final[Mapping[Scene, tuple[str, ...]]] = {
    budget_nearly_spent: ("IncentivesBudgetNearlySpent",),
    a_refund_waits_for_its_order: ("IncentivesFactsWaitLong",),
    an_order_is_odd: ("IncentivesAnomaliesOpen",),
    the_relay_is_killed: ("IncentivesProcessDown", "IncentivesOutboxStuck"),
    a_sender_sends_nonsense: ("IncentivesDeadLettersMany",),
    a_letter_is_forgotten: ("IncentivesDeadLettersOld",),
    checkouts_leave_before_the_answer: ("IncentivesQuotesUnanswered",),
}
OBJECTIVES: Final[Mapping[Scene, tuple[str, ...]]] = {
    a_letter_lies_for_a_day: ("IncentivesDeadLetterBudgetFast", "IncentivesDeadLetterBudgetSlow"),
    nobody_verifies: ("IncentivesVerifyBudgetFast", "IncentivesVerifyBudgetSlow"),
}
UNSOUND: Final[Mapping[Scene, tuple[str, ...]]] = {
    somebody_gives_credit_past_the_ledger: ("IncentivesLedgerUnsound",),
}
WORKERS: Final[Mapping[Scene, tuple[str, ...]]] = {
    workers_are_killed: ("IncentivesWorkersMissing", "IncentivesWorkersDying"),
    connections_are_taken: ("IncentivesDatabaseFull",),
}
STUCK: Final[Mapping[Scene, tuple[str, ...]]] = {
    consumers_are_stuck_and_then_too_slow: (
        *("IncentivesQueueStuck", "IncentivesReadingDown", "IncentivesLatencyHigh"),
        *("IncentivesLatencyBudgetFast", "IncentivesLatencyBudgetSlow"),
    ),
}
AWAY: Final[Mapping[Scene, tuple[str, ...]]] = {
    postgres_is_away_and_comes_back_as_a_standby: (
        *("IncentivesPaused", "IncentivesDatabaseReadOnly", "IncentivesConsoleFails"),
    ),
}
SHORT: Final = (QUIET, UNSOUND, AWAY)
FULL: Final = ({**QUIET, **OBJECTIVES}, STUCK, UNSOUND, WORKERS, AWAY)
