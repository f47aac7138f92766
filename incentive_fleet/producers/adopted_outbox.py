"""An outbox that an order system adopts: its events are written in its own SQLAlchemy transaction and published later.

Whoever publishes inside the transaction, or right after it, loses an event or invents one when the process dies in
between. Here the event commits with the order or not at all, and a relay publishes it at least once, always with the
same id, so consumers drop the repeats. It never opens a transaction for the writer, and never keeps an id cursor:
identity values commit out of order, and a cursor would step over the late ones.

Postgres and MySQL 8 know SKIP LOCKED, so any number of relays may run. SQLite does not, and SQLAlchemy leaves the clause
out there: run one relay, or events may be published twice (never lost).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    CursorResult,
    DateTime,
    Engine,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Session

from incentive_fleet.brokers.budget import portions
from incentive_fleet.brokers.contract import Publisher
from incentive_fleet.brokers.messages import Message
from incentive_fleet.events.codec import decode, encode_event
from incentive_fleet.events.models import EventData

BATCH_SIZE = 500
BODIES_CHARACTERS = 8 * 1024 * 1024  # of one round, or one body


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that the broker refused; it stays unpublished and is tried again after all others."""

    event_id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class AdoptedRound:
    """What one round of the relay did."""

    published: int
    refused: tuple[RefusedEvent, ...]


def outbox_table(metadata: MetaData, name: str = "event_outbox", schema: str | None = None) -> Table:
    """Describe the outbox in the order system's own metadata; its migrations create it like any other table."""
    id_ = Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True)
    published_at = Column("published_at", DateTime(timezone=True))  # NULL is the unpublished mark
    refusals = Column("refusals", Integer, nullable=False, server_default="0")
    return Table(
        name,
        metadata,
        id_,
        Column("event_id", String(200), nullable=False, unique=True),
        Column("type", String(200), nullable=False),
        Column("body", Text, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        published_at,
        refusals,
        Column("last_refusal", Text),
        # Small for ever: it holds what is unpublished, however many events the table keeps.
        Index(
            f"{name}_unpublished",
            refusals,
            id_,
            postgresql_where=published_at.is_(None),
            sqlite_where=published_at.is_(None),
        ),
        schema=schema,
    )


def add_event(  # noqa: PLR0913 - order systems call it by these names
    connection: Connection | Session,
    table: Table,
    data: EventData,
    *,
    source: str,
    time: datetime,
    id: str | None = None,
    traceparent: str | None = None,
) -> str:
    """Write an event into the outbox within the caller's transaction, and return its id (a new UUID unless given).

    `time` is the envelope's, aware. Raises Malformed when the event breaks a bound, so that the mistake shows where it
    is made and not at the consumer. An id that is there already is the database's unique violation.
    """
    body = encode_event(source, id or str(uuid4()), data, time, traceparent)
    event = decode(body)
    connection.execute(insert(table).values(event_id=event.id, type=event.type, body=body.decode()))
    return event.id


def relay_adopted(engine: Engine, table: Table, publisher: Publisher, batch_size: int = BATCH_SIZE) -> AdoptedRound:
    """Publish up to `batch_size` unpublished events in one transaction, fewer where they are large; call it again while it
    publishes any.

    Raises what the publisher raises and, from the database, SQLAlchemy's own errors; a retry is harmless, as the same
    ids are published again. Safe to run in several processes at once where the database knows SKIP LOCKED.
    """
    pick = (
        select(table.c.id, func.length(table.c.body).label("characters"))
        .where(table.c.published_at.is_(None))
        .order_by(table.c.refusals, table.c.id)
        .limit(batch_size)
        .with_for_update(skip_locked=True)
    )
    with engine.begin() as connection:
        picked = connection.execute(pick).all()
        portion = next(portions(picked, lambda row: int(row.characters), BODIES_CHARACTERS, batch_size), [])
        order = {row.id: place for place, row in enumerate(portion)}
        read = select(table.c.id, table.c.event_id, table.c.type, table.c.body).where(table.c.id.in_(order))
        rows = sorted(connection.execute(read).all(), key=lambda row: order[row.id]) if order else []
        rejections = (
            publisher.publish([Message(row.body.encode(), row.type, row.event_id) for row in rows]) if rows else []
        )
        for rejection in rejections:
            connection.execute(
                update(table)
                .where(table.c.id == rows[rejection.index].id)
                .values(refusals=table.c.refusals + 1, last_refusal=f"{rejection.reason}: {rejection.detail}")
            )
        refused = {rejection.index for rejection in rejections}
        confirmed = [row.id for index, row in enumerate(rows) if index not in refused]
        connection.execute(update(table).where(table.c.id.in_(confirmed)).values(published_at=func.now()))
    return AdoptedRound(
        len(confirmed), tuple(RefusedEvent(rows[f.index].event_id, f.reason, f.detail) for f in rejections)
    )


def forget_published(connection: Connection | Session, table: Table, before: datetime) -> None:
    """Delete events that were published before a time, in the caller's transaction; the unpublished stay for ever."""
    connection.execute(delete(table).where(table.c.published_at < before))


def publish_again(connection: Connection | Session, table: Table, since: datetime) -> int:
    """Mark what was published at a time or later as unpublished, in the caller's transaction; how many. The relay sends it
    once more, with the same ids, so repeats change nothing. For a consumer whose database was restored to the past."""
    marked = connection.execute(update(table).where(table.c.published_at >= since).values(published_at=None))
    assert isinstance(marked, CursorResult)
    return marked.rowcount
