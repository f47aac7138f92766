"""Expiry: what is left of lots past their expiry and grace goes to breakage (rules 8.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from psycopg import Connection

from incentive_fleet.events.times import format_time
from incentive_fleet.incentives.booking import Book, Cause, Posting, expire
from incentive_fleet.incentives.wallet import Wallet
from incentive_fleet.ledger.columns import packed_rows
from incentive_fleet.ledger.conditions import Conditions
from incentive_fleet.ledger.connection import mapped_errors, retry_contention
from incentive_fleet.ledger.jobs import record_run
from incentive_fleet.ledger.locking import READ_LOTS, WalletNeeds, add_lots, lock_terms, lock_wallets
from incentive_fleet.ledger.probe import probe
from incentive_fleet.ledger.rows import OUTBOX
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.splitting import Probe, Trial, refusal_of
from incentive_fleet.ledger.telling import notice_row
from incentive_fleet.ledger.working_set import WalletKey
from incentive_fleet.ledger.writing import transfer_changes, wallet_changes, write

WALLETS_MAX = 500  # of one transaction

# Keyset pages over the live lots' index: each page goes on behind the last wallet of the one before.
READ_DUE = """
    SELECT DISTINCT customer_id, currency FROM lots
    WHERE live AND expires_at <= %s AND (customer_id, currency) > (%s, %s)
    ORDER BY customer_id, currency LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class ExpirySummary:
    """What one run moved: wallets and lots touched, minor units by currency."""

    wallets: int
    lots: int
    moved: dict[str, int]
    refused: list[dict[str, str]]  # wallets that the database refuses to sweep, and why; they stay as they are


def expire_lots(
    session: Session, as_of: datetime, grace: timedelta, progress: Callable[[int], None] = lambda wallets: None
) -> ExpirySummary:
    """Sweep every lot with expires_at + grace <= as_of, some hundred wallets a transaction. Idempotent, also twice at once.

    `progress` is called with the wallets done so far. Raises DatabaseUnavailable, DatabaseContention or DatabaseUnfit: what
    was swept stays swept, and running it again does the rest.
    """
    due = as_of - grace
    postings: list[Posting] = []
    refused: list[dict[str, str]] = []
    wallets, lots, moved = 0, 0, dict[str, int]()
    after: WalletKey = ("", "")

    def sweep(keys: Sequence[WalletKey]) -> None:
        with mapped_errors():
            postings.extend(retry_contention()(_sweep, session, keys, due))

    def blame(culprits: Sequence[tuple[WalletKey, Exception]]) -> None:
        for (customer_id, currency), error in culprits:
            refused.append({"customer_id": customer_id, "currency": currency, "detail": refusal_of(error)})

    trial: Trial[WalletKey] = Trial(Probe(partial(probe, session)), blame)
    while page := _due(session, due, after):
        trial.split(page, sweep)
        trial.judge()
        for posting in postings:
            moved[posting.currency] = moved.get(posting.currency, 0) + posting.amount
        wallets, lots, after = wallets + len(page), lots + len(postings), page[-1]
        postings.clear()
        progress(wallets)
    return ExpirySummary(wallets - len(refused), lots, moved, refused)


def record_expiry(
    session: Session, summary: ExpirySummary, as_of: datetime, began_at: datetime, seconds: float
) -> None:
    """Write a run down for whoever watches that it runs. Raises DatabaseUnavailable or DatabaseUnfit."""
    figures = {
        "as_of": format_time(as_of),
        "wallets": summary.wallets,
        "lots": summary.lots,
        "moved": summary.moved,
        "refused": len(summary.refused),
    }
    record_run(session.connection, "expire", began_at, seconds, well=not summary.refused, figures=figures)


def _due(session: Session, due: datetime, after: WalletKey) -> list[WalletKey]:
    with mapped_errors(blameless=True):
        rows = session.connection.execute(READ_DUE, (due, *after, WALLETS_MAX)).fetchall()
    return [(row[0], row[1]) for row in rows]


def _sweep(session: Session, keys: Sequence[WalletKey], due: datetime) -> list[Posting]:
    connection = session.connection
    postings: list[Posting] = []
    with connection.transaction():
        session.terms = lock_terms(connection, session.terms)
        wallets, usage = lock_wallets(connection, WalletNeeds(sorted(keys), sorted(keys), []), Conditions())
        _add_roots(connection, wallets)
        notices = [
            notice_row(notice)
            for key in sorted(wallets)
            for notice in expire(Book(Cause("expiry", due, None), wallets[key], usage, postings), due)
        ]
        write(connection, [*wallet_changes(wallets.values()), transfer_changes(postings), (OUTBOX, notices)])
    return postings


def _add_roots(connection: Connection[Any], wallets: dict[WalletKey, Wallet]) -> None:
    """Load the roots of reissued lots as well: what expires is summed up there."""
    missing = {
        (*key, lot.root_lot_no)
        for key, wallet in wallets.items()
        for lot in wallet.lots.values()
        if lot.root_lot_no not in wallet.lots
    }
    if missing:
        add_lots(wallets, connection.execute(READ_LOTS, packed_rows(sorted(missing))).fetchall())
