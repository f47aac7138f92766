"""Publishes our outbox: picks outcomes by their unpublished mark, records the publication in place of the mark when the
broker has confirmed.

It never remembers how far it got: identity values commit out of order, and a cursor would step over the late ones. A
crash between the confirm and the commit publishes again with the same CloudEvent id, so receivers see each outcome at
least once. Several relays may run at a time; SKIP LOCKED deals the marks out between them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import psycopg

from incentive_fleet.brokers.contract import Publisher
from incentive_fleet.brokers.messages import Rejection, message_of
from incentive_fleet.failpoints import failpoint
from incentive_fleet.ledger.connection import mapped_errors

Connection = psycopg.Connection[tuple[object, ...]]

PICK = """
    SELECT outbox_id FROM outbox_unpublished
    WHERE destination = %s AND outbox_id <> ALL (%s)
    ORDER BY outbox_id LIMIT %s
    FOR UPDATE SKIP LOCKED
"""
# A statement of its own: joined to the marks, stale statistics made a merge join walk every outcome ever published.
# Bodies up to a sum of bytes, and the one that reaches it; the rest keep their marks for the next round.
READ = """
    SELECT outbox_id, body FROM (
        SELECT outbox_id, body, sum(octet_length(body)) OVER (ORDER BY outbox_id) - octet_length(body) AS before
        FROM outbox WHERE outbox_id = ANY (%s)
    ) AS picked
    WHERE before < %s ORDER BY outbox_id
"""
BODIES_BYTES = 8 * 1024 * 1024  # in one round: each is there some six times, from the driver's buffer to the broker's
# The marks go and the publication comes in one statement: neither is ever seen without the other.
CONFIRMED = """
    WITH confirmed AS (
        DELETE FROM outbox_unpublished WHERE destination = %s AND outbox_id = ANY (%s) RETURNING destination, outbox_id
    )
    INSERT INTO publications (destination, outcomes, outbox_ids)
    SELECT destination, count(*), range_agg(int8range(outbox_id, outbox_id, '[]')) FROM confirmed GROUP BY destination
"""
# Counts what other relays hold locked as well: it is not published before they commit.
ANY_LEFT = "SELECT EXISTS (SELECT FROM outbox_unpublished WHERE destination = %s AND outbox_id <> ALL (%s))"
UNPUBLISHED = "SELECT destination, count(*)::bigint FROM outbox_unpublished GROUP BY destination ORDER BY destination"
WANTED = "SELECT destination FROM destinations ORDER BY destination"


@dataclass(frozen=True, slots=True)
class RejectedOutcome:
    """An outcome that a broker did not take. It keeps its mark."""

    outbox_id: int
    rejection: Rejection


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did at one destination."""

    published: int
    rejected: tuple[RejectedOutcome, ...]


def relay_once(connection: Connection, publishers: Mapping[str, Publisher], batch_size: int) -> dict[str, Round]:
    """Publish up to `batch_size` outcomes to each destination; one transaction for each. See `relay_round`."""
    return {name: relay_round(connection, name, publisher, batch_size) for name, publisher in publishers.items()}


def relay_round(
    connection: Connection, destination: str, publisher: Publisher, batch_size: int, set_aside: Collection[int] = ()
) -> Round:
    """Publish up to `batch_size` unpublished outcomes to one destination, but for those `set_aside`.

    Raises DatabaseUnavailable, DatabaseContention, DatabaseUnfit, StatementTimedOut, BrokerUnavailable (a retry helps; what
    was published already is published again with the same id) and SettingsError.
    """
    with mapped_errors(blameless=True), connection.transaction():
        marks = connection.execute(PICK, (destination, list(set_aside), batch_size)).fetchall()
        if not marks:
            return Round(0, ())
        rows = connection.execute(READ, ([mark[0] for mark in marks], BODIES_BYTES)).fetchall()
        ids = [int(str(row[0])) for row in rows]
        failpoint("relay-before-publish")
        rejections = publisher.publish([message_of(str(row[1]).encode()) for row in rows])
        failpoint("relay-after-publish")
        rejected = tuple(RejectedOutcome(ids[rejection.index], rejection) for rejection in rejections)
        kept = {one.outbox_id for one in rejected}
        confirmed = [outbox_id for outbox_id in ids if outbox_id not in kept]
        connection.execute(CONFIRMED, (destination, confirmed))
        return Round(len(confirmed), rejected)


def any_left(connection: Connection, destination: str, set_aside: Collection[int] = ()) -> bool:
    """True while an outcome, but for those `set_aside`, is unpublished at this destination."""
    with mapped_errors(blameless=True):
        row = connection.execute(ANY_LEFT, (destination, list(set_aside))).fetchone()
    return bool(row and row[0])


def unpublished(connection: Connection) -> dict[str, int]:
    """How many outcomes each destination has not confirmed; destinations without any are left out."""
    with mapped_errors(blameless=True):
        rows = connection.execute(UNPUBLISHED).fetchall()
    return {str(destination): int(str(count)) for destination, count in rows}


def wanted(connection: Connection) -> frozenset[str]:
    """The destinations that new outcomes are marked for."""
    with mapped_errors(blameless=True):
        return frozenset(str(row[0]) for row in connection.execute(WANTED).fetchall())
