"""Grants: credit that somebody hands out, and taking it back (rules 8.4 and 8.5). A person's act, idempotent by its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any

from psycopg import Connection

from incentive_fleet.errors import Refused
from incentive_fleet.incentives.booking import Book, Cause, Posting, take_back_grant
from incentive_fleet.incentives.campaigns import CampaignSet, Usage
from incentive_fleet.incentives.notices import withdrawn
from incentive_fleet.incentives.wallet import Wallet
from incentive_fleet.ledger.conditions import Conditions
from incentive_fleet.ledger.connection import mapped_errors, retry_contention
from incentive_fleet.ledger.csv_rows import require_text
from incentive_fleet.ledger.granting import give
from incentive_fleet.ledger.locking import WalletNeeds, limited_among, lock_terms, lock_wallets
from incentive_fleet.ledger.probe import probe
from incentive_fleet.ledger.rows import GRANTS, OUTBOX, GrantRow, OutcomeRow
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.splitting import Probe, Trial, refusal_of
from incentive_fleet.ledger.telling import notice_row
from incentive_fleet.ledger.working_set import WalletKey
from incentive_fleet.ledger.writing import transfer_changes, wallet_changes, write

GRANTS_MAX = 5_000  # of one transaction
AMOUNT_MAX = 10**12  # minor units, as much as an order may ask for at once

READ_GRANTS = """
    SELECT key, customer_id, currency, amount, campaign_id, expires_at FROM grants WHERE key = ANY(%s)
"""
ADD_ACTS = "INSERT INTO grant_acts (key, act, actor) SELECT unnest(%s::text[]), %s, %s"


@dataclass(frozen=True, slots=True)
class Grant:
    """Credit for a customer under a campaign of kind `grant`. `amount` in minor units; `expires_at` None never expires."""

    key: str
    customer_id: str
    currency: str
    amount: int
    campaign_id: str
    expires_at: datetime | None


class Granted(Enum):
    """What became of a grant that was not refused."""

    NEW = "granted"
    ALREADY = "already-granted"


@dataclass(frozen=True, slots=True)
class GrantReversal:
    """What taking a grant back brought, in minor units. `again` when it had been taken back before."""

    key: str
    returned: int
    spent: int  # of the grant, by orders, debts or expiry: reported, not owed
    again: bool


def grant(session: Session, grants: Sequence[Grant], now: datetime, by: str | None = None) -> list[Granted | Refused]:
    """Hand out credit in one transaction; a result a grant, in order. A refused one records nothing, the rest apply.

    Idempotent by key. `now` is the time the act happened, `by` who does it, kept with what is new. Raises DatabaseUnavailable,
    DatabaseContention or DatabaseUnfit; a retry helps. Refusals: unknown-campaign, not-a-grant-campaign, wrong-currency,
    amount-out-of-bounds, key-taken, budget-exhausted, and cannot-be-booked for one that the database refuses (a wallet holds
    2^63 - 1 minor units); then the others take several transactions.
    """
    if not 1 <= len(grants) <= GRANTS_MAX:
        raise ValueError(f"one transaction takes 1 to {GRANTS_MAX} grants, not {len(grants)}")
    results: dict[int, Granted | Refused] = {}

    def hand_out(some: Sequence[tuple[int, Grant]]) -> None:
        with mapped_errors():
            done = retry_contention()(_grant_once, session, [one for _, one in some], now, by)
        results.update((number, result) for (number, _), result in zip(some, done, strict=True))

    def blame(culprits: Sequence[tuple[tuple[int, Grant], Exception]]) -> None:
        for (number, one), error in culprits:
            results[number] = Refused("cannot-be-booked", f"amount is {one.amount}: {refusal_of(error)}")

    trial: Trial[tuple[int, Grant]] = Trial(Probe(partial(probe, session)), blame)
    trial.split(list(enumerate(grants)), hand_out)
    trial.judge()
    return [results[number] for number in range(len(grants))]


def _grant_once(session: Session, grants: Sequence[Grant], now: datetime, by: str | None) -> list[Granted | Refused]:
    connection = session.connection
    with connection.transaction():
        session.terms = lock_terms(connection, session.terms)
        campaigns = session.terms.campaigns
        checked = [_check(one, campaigns) or one for one in grants]
        valid = [one for one in checked if isinstance(one, Grant)]
        if not valid:
            return [one for one in checked if isinstance(one, Refused)]
        keys = sorted({(one.customer_id, one.currency) for one in valid})
        limited = limited_among(campaigns, (one.campaign_id for one in valid))
        wallets, usage = lock_wallets(connection, WalletNeeds(keys, [], []), Conditions(limited=limited))
        run = _GrantRun(campaigns, usage, wallets, _taken_keys(connection, [one.key for one in valid]), now)
        results = [one if isinstance(one, Refused) else run.decide(one) for one in checked]
        changes = [transfer_changes(run.postings), (GRANTS, run.rows), (OUTBOX, run.notices)]
        write(connection, [*wallet_changes(wallets.values()), *changes])
        _sign(connection, [row.key for row in run.rows], "granted", by)
    return results


def _sign(connection: Connection[Any], keys: list[str], act: str, by: str | None) -> None:
    if by is not None and keys:
        connection.execute(ADD_ACTS, (keys, act, by))


def _check(one: Grant, campaigns: CampaignSet) -> Refused | None:
    campaign = campaigns.by_id.get(one.campaign_id)
    if campaign is None:
        return Refused("unknown-campaign", f"campaign_id is {one.campaign_id!r}: no such campaign is loaded")
    if campaign.kind != "grant":
        return Refused("not-a-grant-campaign", f"campaign_id is {one.campaign_id!r}: its kind is {campaign.kind}")
    if campaign.currency != one.currency:
        return Refused("wrong-currency", f"currency is {one.currency!r}: {one.campaign_id} is in {campaign.currency}")
    if not 1 <= one.amount <= AMOUNT_MAX:
        return Refused("amount-out-of-bounds", f"amount is {one.amount}: must be 1 to {AMOUNT_MAX} minor units")
    return None


def _taken_keys(connection: Connection[Any], keys: list[str]) -> dict[str, Grant]:
    return {row[0]: Grant(*row) for row in connection.execute(READ_GRANTS, (keys,)).fetchall()}


@dataclass(slots=True)
class _GrantRun:
    """Decides the grants of one transaction, one after the other; each meets what those before it took."""

    campaigns: CampaignSet
    usage: Usage
    wallets: dict[WalletKey, Wallet]
    taken: dict[str, Grant]
    now: datetime
    postings: list[Posting] = field(default_factory=list)
    rows: list[GrantRow] = field(default_factory=list)
    notices: list[OutcomeRow] = field(default_factory=list)

    def decide(self, one: Grant) -> Granted | Refused:
        before = self.taken.get(one.key)
        if before is not None:
            if before == one:
                return Granted.ALREADY
            return Refused("key-taken", f"key is {one.key!r}: it was used for another grant: {_describe(before)}")
        campaign = self.campaigns.by_id[one.campaign_id]
        if not self.usage.affords(campaign, one.amount):
            left = (campaign.budget or 0) - self.usage.spent.get(campaign.id, 0)
            return Refused("budget-exhausted", f"amount is {one.amount}: the budget of {campaign.id} has {left} left")
        wallet = self.wallets[(one.customer_id, one.currency)]
        book = Book(Cause(f"grant:{one.key}", self.now, None), wallet, self.usage, self.postings)
        row, notice = give(book, campaign, one.key, one.amount, one.expires_at)
        self.taken[one.key] = one
        self.rows.append(row)
        self.notices.append(notice)
        return Granted.NEW


def reverse_grant(session: Session, key: str, reason: str, now: datetime, by: str | None = None) -> GrantReversal:
    """Take a grant back: what is left of its lot and of lots reissued from it returns to the campaign. Idempotent.

    `by` is who does it, kept with the reversal.

    Raises Refused (bad-text, unknown-grant), DatabaseUnavailable or DatabaseContention; a retry helps with the latter two.
    """
    require_text("reason", reason)
    with mapped_errors():
        return retry_contention()(_reverse_once, session, key, reason, now, by)


def _reverse_once(session: Session, key: str, reason: str, now: datetime, by: str | None) -> GrantReversal:
    connection = session.connection
    with connection.transaction():
        session.terms = lock_terms(connection, session.terms)
        found = connection.execute("SELECT customer_id, currency, lot_no FROM grants WHERE key = %s", (key,)).fetchone()
        if found is None:
            raise Refused("unknown-grant", f"key is {key!r}: no such grant")
        wallet_key: WalletKey = (found[0], found[1])
        wallets, usage = lock_wallets(connection, _of_grant(wallet_key, found[2]), Conditions())
        row = connection.execute(
            "SELECT amount, lot_no, reversed_at IS NOT NULL, reversed_minor FROM grants WHERE key = %s", (key,)
        ).fetchone()
        assert row is not None
        amount, lot_no, again, reversed_before = row
        if again:
            return GrantReversal(key, reversed_before, amount - reversed_before, again=True)
        postings: list[Posting] = []
        wallet = wallets[wallet_key]
        book = Book(Cause(f"grant-reversal:{key}", now, None), wallet, usage, postings)
        returned = take_back_grant(book, lot_no)
        notices = [notice_row(withdrawn(wallet, wallet.lots[lot_no], key, returned, now))] if returned else []
        write(connection, [*wallet_changes([wallet]), transfer_changes(postings), (OUTBOX, notices)])
        connection.execute(
            "UPDATE grants SET reversed_at = %s, reversal_reason = %s, reversed_minor = %s WHERE key = %s",
            (now, reason, returned, key),
        )
        _sign(connection, [key], "reversed", by)
    return GrantReversal(key, returned, amount - returned, again=False)


def _of_grant(wallet: WalletKey, lot_no: int) -> WalletNeeds:
    return WalletNeeds([wallet], [wallet], [(*wallet, lot_no)])


def _describe(one: Grant) -> str:
    expiry = one.expires_at.isoformat() if one.expires_at else "never"
    return f"{one.amount} {one.currency} for {one.customer_id} under {one.campaign_id}, expires {expiry}"
