"""Codes of campaigns with a pool (rules 13): loading, generating, revoking, and what became of one.

A code belongs to one campaign for ever and is unique among all codes, upper-cased. Loads hold the terms alone, so no
campaign can take a code meanwhile; who redeems a code locks its row.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import dict_row

from incentive_fleet.errors import Refused
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.csv_rows import require_text
from incentive_fleet.ledger.terms import TERMS_LOCK

ALPHABET: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # 32, none that is read as another
LENGTH: Final = 12  # 60 bits: ten million codes collide with one chance in twenty thousand, and then one is drawn again
GENERATED_MAX: Final = 10**7  # of one batch, rules 13
CHUNK: Final = 50_000  # codes of one transaction
LOADED_MAX: Final = 10**7  # rows of one file

STAGE = """
    CREATE TEMPORARY TABLE staged_codes (
        line int, campaign_id text, code text, customer_id text, expires_at timestamptz
    ) ON COMMIT DROP
"""
WRONG = """
    WITH staged AS (
        SELECT *, (campaign_id, customer_id, expires_at) IS DISTINCT FROM
            (first_value(campaign_id) OVER same, first_value(customer_id) OVER same, first_value(expires_at) OVER same) AS differs
        FROM staged_codes WINDOW same AS (PARTITION BY code ORDER BY line)
    )
    SELECT s.line, CASE
        WHEN c.campaign_id IS NULL OR v.terms ->> 'codes' IS DISTINCT FROM 'pool' THEN
            'campaign_id is ' || s.campaign_id || ': no campaign with a pool of codes is loaded under this id'
        WHEN other.campaign_id IS NOT NULL THEN
            'code is ' || s.code || ': it belongs to campaign ' || other.campaign_id
        WHEN known.code IS NOT NULL THEN
            'code is ' || s.code || ': it is there with other content, of campaign ' || known.campaign_id
        ELSE 'code is ' || s.code || ': it comes again with other content' END
    FROM staged AS s
        LEFT JOIN campaigns AS c USING (campaign_id)
        LEFT JOIN campaign_versions AS v ON v.campaign_id = c.campaign_id AND v.version = c.version
        LEFT JOIN campaigns AS other ON other.code = s.code
        LEFT JOIN codes AS known ON known.code = s.code
            AND (known.campaign_id, known.customer_id, known.expires_at)
                IS DISTINCT FROM (s.campaign_id, s.customer_id, s.expires_at)
    WHERE c.campaign_id IS NULL OR v.terms ->> 'codes' IS DISTINCT FROM 'pool' OR other.campaign_id IS NOT NULL
        OR known.code IS NOT NULL OR s.differs
    ORDER BY s.line LIMIT 50
"""
ADD_STAGED = """
    INSERT INTO codes (code, campaign_id, customer_id, expires_at)
    SELECT DISTINCT ON (code) code, campaign_id, customer_id, expires_at FROM staged_codes ORDER BY code, line
    ON CONFLICT (code) DO NOTHING
"""
ADD_GENERATED = """
    INSERT INTO codes (code, campaign_id, batch) SELECT code, %s, %s FROM unnest(%s::text[]) AS k (code)
    WHERE NOT EXISTS (SELECT FROM campaigns WHERE campaigns.code = k.code) ON CONFLICT (code) DO NOTHING
"""
LOCK_BATCH = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
REVOKE = """
    UPDATE codes SET revoked_at = now(), revoke_reason = %s
    WHERE code = ANY(SELECT code FROM codes WHERE code = ANY(%s) AND revoked_at IS NULL ORDER BY code FOR NO KEY UPDATE)
"""
SHOW = """
    SELECT c.code, c.campaign_id, c.batch, c.customer_id, c.expires_at, c.order_id, c.revoked_at, c.revoke_reason
    FROM codes AS c WHERE c.code = %s
"""


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One line of a file of codes: the code upper-cased, bound to a customer or to nobody."""

    line: int
    campaign_id: str
    code: str
    customer_id: str | None
    expires_at: datetime | None


class CodesRefused(Refused):
    """Nothing of the file was loaded; `problems` are sentences that name the line."""

    def __init__(self, reason: str, problems: Sequence[str]) -> None:
        super().__init__(reason, "; ".join(problems[:3]))
        self.problems = list(problems)


def load_codes(connection: Connection[Any], rows: Iterable[PoolRow]) -> tuple[int, int]:
    """Add a file's codes, all or nothing; returns how many are new and how many were there. Idempotent.

    Raises CodesRefused (code-refused) naming the lines, DatabaseUnavailable or DatabaseContention.
    """
    with mapped_errors(blameless=True), connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (TERMS_LOCK,))
        connection.execute(STAGE)
        count = 0
        with connection.cursor().copy("COPY staged_codes FROM STDIN") as copy:
            for row in rows:
                copy.write_row((row.line, row.campaign_id, row.code, row.customer_id, row.expires_at))
                count += 1
        connection.execute("ANALYZE staged_codes")
        wrong = connection.execute(WRONG).fetchall()
        if wrong:
            raise CodesRefused("code-refused", [f"line {line}: {sentence}" for line, sentence in wrong])
        added = connection.execute(ADD_STAGED).rowcount
    return added, count - added


def generate_codes(
    connection: Connection[Any],
    campaign_id: str,
    batch: str,
    count: int,
    tell: Callable[[int], None] = lambda done: None,
) -> int:
    """Bring a batch up to `count` codes from the system's random source; returns how many were added. Resumable.

    Each transaction adds CHUNK of them. Raises Refused (count-out-of-bounds, bad-text, not-a-pool, other-count),
    DatabaseUnavailable or DatabaseContention.
    """
    if not 1 <= count <= GENERATED_MAX:
        raise Refused("count-out-of-bounds", f"count is {count}: must be 1 to {GENERATED_MAX}")
    require_text("batch", batch)
    with mapped_errors(blameless=True):
        done = began = _begin(connection, campaign_id, batch, count)
        while done < count:
            with connection.transaction():
                # One after the other, so that a batch that two people generate at once ends with its count.
                connection.execute(LOCK_BATCH, (f"{campaign_id}\n{batch}",))
                done = _generated(connection, campaign_id, batch)
                codes = [_random_code() for _ in range(min(CHUNK, count - done))]
                done += connection.execute(ADD_GENERATED, (campaign_id, batch, codes)).rowcount if codes else 0
            tell(done)
    return done - began


def _begin(connection: Connection[Any], campaign_id: str, batch: str, count: int) -> int:
    with connection.transaction():
        if not connection.execute(
            "SELECT 1 FROM campaigns JOIN campaign_versions USING (campaign_id, version)"
            " WHERE campaign_id = %s AND terms ->> 'codes' = 'pool'",
            (campaign_id,),
        ).fetchone():
            raise Refused("not-a-pool", f"campaign is {campaign_id!r}: no campaign with a pool of codes has this id")
        connection.execute(
            "INSERT INTO code_batches (campaign_id, batch, codes) VALUES (%s, %s, %s)"
            " ON CONFLICT (campaign_id, batch) DO NOTHING",
            (campaign_id, batch, count),
        )
        row = connection.execute(
            "SELECT codes FROM code_batches WHERE campaign_id = %s AND batch = %s", (campaign_id, batch)
        ).fetchone()
        if row is None or row[0] != count:
            raise Refused("other-count", f"count is {count}: batch {batch!r} was asked for with {row[0] if row else 0}")
        return _generated(connection, campaign_id, batch)


def _generated(connection: Connection[Any], campaign_id: str, batch: str) -> int:
    row = connection.execute(
        "SELECT count(*) FROM codes WHERE campaign_id = %s AND batch = %s", (campaign_id, batch)
    ).fetchone()
    return int(row[0]) if row else 0


def _random_code() -> str:
    drawn = secrets.randbits(5 * LENGTH)
    return "".join([ALPHABET[drawn >> 5 * place & 31] for place in range(LENGTH)])


def revoke_codes(connection: Connection[Any], codes: Iterable[tuple[int, str]], reason: str) -> tuple[int, int]:
    """Revoke a file's codes for ever, all or nothing; returns how many are new and how many were revoked before. Idempotent.

    `codes` are lines and codes, upper-cased. Raises CodesRefused (unknown-code) for codes of no pool, and Refused
    (bad-text) for the reason.
    """
    require_text("reason", reason)
    lines = {code: line for line, code in codes}
    with mapped_errors(blameless=True), connection.transaction():
        known = {
            code
            for chunk in _chunks(sorted(lines))
            for (code,) in connection.execute("SELECT code FROM codes WHERE code = ANY(%s)", (chunk,)).fetchall()
        }
        if missing := sorted(lines.keys() - known, key=lambda code: lines[code]):
            raise CodesRefused(
                "unknown-code", [f"line {lines[code]}: code is {code}: no pool has it" for code in missing]
            )
        revoked = sum(connection.execute(REVOKE, (reason, chunk)).rowcount for chunk in _chunks(sorted(lines)))
    return revoked, len(lines) - revoked


def _chunks(values: Sequence[str]) -> Iterator[list[str]]:
    left = iter(values)
    while chunk := list(islice(left, CHUNK)):
        yield chunk


def export_codes(connection: Connection[Any], campaign_id: str, batch: str) -> Iterator[str]:
    """The codes of a batch, sorted. Raises Refused (unknown-batch)."""
    with mapped_errors(blameless=True):
        if not connection.execute(
            "SELECT 1 FROM code_batches WHERE campaign_id = %s AND batch = %s", (campaign_id, batch)
        ).fetchone():
            raise Refused("unknown-batch", f"batch is {batch!r}: campaign {campaign_id!r} has none of this key")
        after = ""
        while rows := connection.execute(
            "SELECT code FROM codes WHERE campaign_id = %s AND batch = %s AND code > %s ORDER BY code LIMIT %s",
            (campaign_id, batch, after, CHUNK),
        ).fetchall():
            yield from (code for (code,) in rows)
            after = rows[-1][0]


def show_code(connection: Connection[Any], code: str) -> dict[str, Any] | None:
    """What became of a pooled code; None when no pool has it. Times are aware."""
    with mapped_errors(blameless=True), connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(SHOW, (code.upper(),)).fetchone()
