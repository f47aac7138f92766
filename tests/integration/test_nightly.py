"""The nightly verification: what it reads, how far its point may go, and that what changes below the point is found."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from hashlib import sha256
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import Connection
from psycopg import errors as pg

from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.errors import DatabaseUnavailable
from incentive_fleet.ledger import blocks
from incentive_fleet.ledger.blocks import (
    BLOCK_TRANSFERS,
    TURNS,
    blocks_of_turn,
    changed_blocks,
    read_point,
    seal,
    settle,
)
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.jobs import read_runs
from incentive_fleet.ledger.nightly import Mode, verify_and_record
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.verify import VerifyReport, all_checks
from incentive_fleet.telemetry.figures import of_backlog
from incentive_fleet.telemetry.table import METRICS
from tests.domain import asked, delivered, placed, refunded
from tests.parts import fresh_database
from tests.small_world import apply, corrupt, give, play, rows

SMALL_BLOCK = 1  # so that the small world has blocks for more than thirty turns
NEW_WORLD = "tomorrow"


@pytest.fixture(scope="module")
def played_template(postgres: Postgres, database_template: str) -> Iterator[str]:
    """The small world, all of it verified and sealed."""
    with fresh_database(postgres, database_template) as url:
        play(url)
        assert _run(url, "full").sound
        yield urlsplit(url).path.lstrip("/")


@pytest.fixture
def played_url(postgres: Postgres, played_template: str) -> Iterator[str]:
    with fresh_database(postgres, played_template) as url:
        yield url


def _run(url: str, mode: Mode = "incremental", **options: Any) -> VerifyReport:
    return verify_and_record(lambda: closing(connect(url)), mode, **{"block_transfers": SMALL_BLOCK, **options})


def _failing(report: VerifyReport) -> set[str]:
    return {check.name for check in report.checks if check.faults}


def _tomorrow(url: str) -> None:
    """A day's events on the small world: old and new customers, an old order and new ones."""
    with closing(Session(url)) as session:
        give(session, f"g-{NEW_WORLD}", 500)
        apply(session, placed(NEW_WORLD, coupons=["K"], credit=70), delivered(NEW_WORLD), asked("g-asked", 50))
        apply(session, refunded(f"r-{NEW_WORLD}", order="full"), refunded("r1", order=NEW_WORLD))


def _block_of(url: str, transfer: str) -> tuple[int, int]:
    """A sealed transfer, and its block."""
    [row] = rows(
        url,
        "SELECT transfer_id, block_no FROM transfers JOIN transfer_blocks ON transfer_id > after_id AND transfer_id <= last_id"
        f" WHERE {transfer} ORDER BY transfer_id LIMIT 1",
    )
    return row[0], row[1]


def test_the_first_run_reads_everything_and_seals_it(postgres: Postgres, database_template: str) -> None:
    with fresh_database(postgres, database_template) as url:
        play(url)
        report = _run(url)
        [(transfers, last)] = rows(url, "SELECT count(*), max(transfer_id) FROM transfers")
        assert report.sound
        assert report.full
        assert report.recorded
        assert (report.point.transfers, report.point.transfer_id) == (transfers, last)
        assert report.point.block == len(rows(url, "SELECT FROM transfer_blocks")) > TURNS


def test_a_night_reads_what_is_new_and_moves_the_point_behind_it(played_url: str) -> None:
    before = _run(played_url).point
    _tomorrow(played_url)
    report = _run(played_url)
    [(new,)] = rows(played_url, f"SELECT count(*) FROM transfers WHERE transfer_id > {before.transfer_id}")
    assert report.sound, _failing(report)
    assert not report.full
    read = {reading.what: reading.transfers for reading in report.readings}
    assert read["new"] == new > 5
    assert 0 < read["turn"] < before.transfers / 10
    assert report.point.transfers == before.transfers + new
    assert _run(played_url).readings[0].transfers == 0  # the next one finds nothing new


def test_a_small_ledger_is_read_whole_unless_somebody_asks_for_less(
    played_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run(played_url, "auto").full
    monkeypatch.setattr("incentive_fleet.ledger.nightly.WHOLE_UP_TO", 5)
    assert not _run(played_url, "auto").full
    assert _run(played_url, "full").full


def test_the_blocks_tile_transfers_and_outcomes(played_url: str) -> None:
    _tomorrow(played_url)
    _run(played_url)
    _tomorrow_without_credit(played_url)
    _run(played_url)
    tiles = rows(
        played_url, "SELECT after_id, last_id, after_outbox, last_outbox FROM transfer_blocks ORDER BY block_no"
    )
    assert all(one[1] == two[0] and one[3] == two[2] for one, two in pairwise(tiles))
    [ends] = rows(played_url, "SELECT (SELECT max(transfer_id) FROM transfers), (SELECT max(outbox_id) FROM outbox)")
    assert (tiles[0][0], tiles[0][2]) == (0, 0)
    assert (tiles[-1][1], tiles[-1][3]) == ends
    assert max(one[3] - one[2] for one in tiles) < ends[1] / 4, "the outcomes are not dealt out over the blocks"


def _tomorrow_without_credit(url: str) -> None:
    """An outcome, and no transfer at all."""
    with closing(Session(url)) as session:
        apply(session, placed("plain", customer="nobody"))


# What a run tells of a day's faults without reading the rest: the lie, and the checks that must tell it and no others.
TODAYS_LIES: dict[str, tuple[str, set[str]]] = {
    "a new transfer changed": (
        f"UPDATE transfers SET amount = amount + 1 WHERE order_id = '{NEW_WORLD}' AND kind = 'coupon'",
        {"balances", "decisions-booked", "redemptions"},
    ),
    "a new transfer removed": (
        f"DELETE FROM transfers WHERE order_id = '{NEW_WORLD}' AND kind = 'coupon'",
        {"balances", "decisions-booked", "redemptions"},
    ),
    "the decision of an order that is new": (
        "UPDATE decisions SET decision = replace(decision::text, '\"discount\":100', '\"discount\":101')::json"
        f" WHERE order_id = '{NEW_WORLD}'",
        {"order-accounts", "decisions-booked", "decisions-add-up"},
    ),
    "a wallet nobody touched": (
        "UPDATE wallets SET balance = balance + 1 WHERE customer_id = 'eve'",
        {"balances", "debits-and-credits", "wallets-and-lots"},
    ),
    "an order nobody touched": (
        "UPDATE balances SET balance = balance + 1 WHERE account = 'order:spent'",
        {"balances", "debits-and-credits"},
    ),
    "a campaign nobody touched, and breakage with it": (
        "UPDATE balances SET balance = balance + 1 WHERE account IN ('campaign:yen', 'breakage')",
        {"balances", "debits-and-credits"},
    ),
    "a fact of today": (
        f"UPDATE facts SET data = replace(data::text, 'EUR', 'USD')::json WHERE order_id = '{NEW_WORLD}' AND fact = 'placing'",
        {"digests"},
    ),
    "a grant that came by event": (
        "UPDATE facts SET data = replace(data::text, '\"amount\":50', '\"amount\":51')::json WHERE order_id = ''",
        {"digests"},
    ),
    "a waiting fact that is not waited for": (
        "UPDATE facts SET data = replace(data::text, 'never', 'ever')::json WHERE order_id = 'never' AND fact = 'delivery'",
        {"digests"},
    ),
    "an outcome of today": (
        f"DELETE FROM outbox_unpublished WHERE outbox_id = (SELECT max(outbox_id) FROM outbox WHERE order_id = '{NEW_WORLD}')",
        {"publications"},
    ),
}


@pytest.mark.parametrize("what", TODAYS_LIES)
def test_a_lie_about_today_is_told_the_same_night(played_url: str, what: str) -> None:
    _tomorrow(played_url)
    lie, expected = TODAYS_LIES[what]
    before = _point(played_url)
    corrupt(played_url, lie)
    report = _run(played_url)
    assert _failing(report) == expected
    assert _point(played_url) == before, "the point went over what is not sound"
    assert not _recorded(played_url)["verify"].well
    assert _failing(_run(played_url)) == expected  # it is told again until it is mended


def test_both_connections_see_one_moment(played_url: str) -> None:
    """What is changed after the first has begun, the second does not see either: each says what the other one says."""
    _tomorrow(played_url)
    opened: list[int] = []

    @contextmanager
    def opening() -> Iterator[Connection[Any]]:
        opened.append(len(opened))
        if len(opened) == 2:
            corrupt(played_url, f"UPDATE lots SET remaining = remaining - 1 WHERE cause = 'grant:g-{NEW_WORLD}'")
            _tomorrow_without_credit(played_url)
        with closing(connect(played_url)) as connection:
            yield connection

    report = verify_and_record(opening, "incremental", block_transfers=SMALL_BLOCK)
    assert report.sound, _failing(report)
    assert len(opened) == 2
    assert "lots" in _failing(_run(played_url, "full"))


@pytest.mark.parametrize("what", TODAYS_LIES)
def test_where_no_second_connection_is_free_one_tells_the_same(played_url: str, what: str) -> None:
    _tomorrow(played_url)
    lie, expected = TODAYS_LIES[what]
    corrupt(played_url, lie)
    with closing(connect(played_url)) as only:
        ways: Iterator[AbstractContextManager[Connection[Any]]] = iter([nullcontext(only), _none_free()])
        alone = verify_and_record(lambda: next(ways), "incremental", block_transfers=SMALL_BLOCK)
    at_once = _run(played_url)
    assert _failing(alone) == expected
    assert [check.first for check in alone.checks] == [check.first for check in at_once.checks]


@contextmanager
def _none_free() -> Iterator[Connection[Any]]:
    raise DatabaseUnavailable("sorry, too many clients already")
    yield


def test_a_second_connection_to_another_database_is_of_no_use(
    postgres: Postgres, database_template: str, played_url: str
) -> None:
    """A moment is of one server, and of one database: whoever was led elsewhere must not be believed."""
    _tomorrow(played_url)
    with fresh_database(postgres, database_template) as elsewhere:
        ways = iter([played_url, elsewhere])
        report = verify_and_record(lambda: closing(connect(next(ways))), "incremental", block_transfers=SMALL_BLOCK)
    assert report.sound, _failing(report)
    assert report.readings[0].transfers > 5


def test_who_is_interrupted_does_not_wait_for_the_second_connection(played_url: str) -> None:
    _tomorrow(played_url)
    before = _point(played_url)
    with psycopg.connect(played_url) as owner:
        owner.execute("LOCK TABLE lots")  # which the customers' checks read and the orders' do not

        def interrupted(done: int, steps: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            _run(played_url, progress=interrupted)
    assert _point(played_url) == before
    assert _recorded(played_url)["verify"].runs == 1


def test_each_check_says_what_a_night_leaves_unsaid(played_url: str) -> None:
    _run(played_url)
    unsaid = {check.name: check.unsaid for check in _run(played_url).checks}
    in_part = {check.name for check in all_checks() if check.parts}
    assert {name for name, sentence in unsaid.items() if sentence} == in_part | {"blocks"}
    assert all("turn" in sentence and "." in sentence for sentence in unsaid.values() if sentence)
    assert {check.unsaid for check in _run(played_url, "full").checks} == {""}


# What somebody with every right does to transfers that were verified. The last two leave every sum and every rule intact.
YESTERDAYS_LIES = {
    "an amount": "UPDATE transfers SET amount = amount + 1 WHERE transfer_id = {id}",
    "a transfer removed": "DELETE FROM transfers WHERE transfer_id = {id}",
    "when it was booked": "UPDATE transfers SET booked_at = booked_at - interval '1 microsecond' WHERE transfer_id = {id}",
    "a lot where none belongs": "UPDATE transfers SET lot_no = 7 WHERE transfer_id = {id}",
}


@pytest.mark.parametrize("what", YESTERDAYS_LIES)
def test_a_full_run_names_the_first_block_that_changed(played_url: str, what: str) -> None:
    transfer, block = _block_of(played_url, "order_id = 'full' AND kind = 'coupon'")
    corrupt(played_url, YESTERDAYS_LIES[what].format(id=transfer))
    corrupt(
        played_url,
        "UPDATE transfers SET booked_at = now() WHERE transfer_id = (SELECT max(transfer_id) FROM transfers)",
    )
    [check] = [check for check in _run(played_url, "full").checks if check.name == "blocks"]
    assert check.faults == 2
    assert (check.first[0]["block"], check.first[0]["last_transfer"]) == (block, transfer)


@pytest.mark.parametrize("what", ["a transfer removed", "when it was booked"])
def test_thirty_nights_find_whatever_changed(played_url: str, what: str) -> None:
    transfer, block = _block_of(played_url, "order_id = 'full' AND kind = 'coupon'")
    corrupt(played_url, "UPDATE job_runs SET runs = runs + 40")  # any night may be the first one
    corrupt(played_url, YESTERDAYS_LIES[what].format(id=transfer))
    for night in range(TURNS):
        report = _run(played_url)
        [check] = [check for check in report.checks if check.name == "blocks"]
        assert bool(check.faults) == (report.turn == block % TURNS), night
        if check.faults:
            break
    assert check.first == [check.first[0] | {"block": block, "last_transfer": transfer}]
    assert report.turn == block % TURNS
    assert not _recorded(played_url)["verify"].well


def test_thirty_turns_are_every_block(played_url: str) -> None:
    with closing(connect(played_url)) as connection:
        seen = [stretch.last for turn in range(TURNS) for stretch in blocks_of_turn(connection, turn)]
    assert sorted(seen) == [row[0] for row in rows(played_url, "SELECT last_id FROM transfer_blocks ORDER BY block_no")]


def test_what_thirty_nights_read_is_what_a_full_run_reads(played_url: str) -> None:
    """An order whose books were changed long ago: no digest of a transfer tells, its turn does."""
    corrupt(
        played_url,
        "UPDATE decisions SET decision = replace(decision::text, '[600,300]', '[600,299]')::json"
        " WHERE order_id = 'spent' AND decision::text LIKE '%[600,300]%'",
    )
    failing = [_failing(_run(played_url)) for _ in range(TURNS)]
    assert {"decisions-add-up"} in failing
    assert set() in failing


def test_a_chain_that_was_written_anew_is_another_chain(played_url: str) -> None:
    """Who changes a transfer and the digest of its block has to change all that follow, and then the last one tells."""
    kept = _run(played_url).point
    transfer, block = _block_of(played_url, "order_id = 'full' AND kind = 'coupon'")
    anew = (
        "UPDATE transfer_blocks AS b SET digest = transfers_digest((SELECT digest FROM transfer_blocks WHERE block_no ="
        " b.block_no - 1), after_id, last_id) WHERE block_no = {block}"
    )
    corrupt(
        played_url, f"UPDATE transfers SET booked_at = now() WHERE transfer_id = {transfer}", anew.format(block=block)
    )
    with closing(connect(played_url)) as connection:
        assert [changed.block for changed in changed_blocks(connection)] == [block + 1]
    corrupt(played_url, *(anew.format(block=number) for number in range(block + 1, kept.block + 1)))
    with closing(connect(played_url)) as connection:
        assert changed_blocks(connection) == []
        assert read_point(connection).digest != kept.digest


def test_blocks_that_were_taken_out_are_missed(played_url: str) -> None:
    corrupt(played_url, "DELETE FROM transfer_blocks WHERE block_no = 4")
    with closing(connect(played_url)) as connection:
        assert [changed.block for changed in changed_blocks(connection)] == [5]


def test_the_owner_begins_a_new_chain_after_a_repair(played_url: str) -> None:
    corrupt(played_url, "UPDATE transfers SET booked_at = now() WHERE transfer_id = 3")
    assert not _run(played_url, "full").sound
    with psycopg.connect(played_url, autocommit=True) as owner:
        owner.execute("TRUNCATE transfer_blocks")
    report = _run(played_url)
    assert report.sound
    assert report.full
    assert report.point.block > 0


def test_the_digest_is_what_the_page_says(played_url: str) -> None:
    """Anybody can recompute it without Postgres."""
    digest = b""
    for after, last, sealed in rows(
        played_url, "SELECT after_id, last_id, digest FROM transfer_blocks ORDER BY block_no"
    ):
        moved = rows(
            played_url,
            "SELECT transfer_id, kind, debit_account, credit_account, currency, amount, customer_id, order_id, lot_no, cause,"
            " to_char(happened_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'),"
            " to_char(booked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
            f" FROM transfers WHERE transfer_id > {after} AND transfer_id <= {last} ORDER BY transfer_id",
        )
        lines = [json.dumps([*row[:-2], *map(_shortest, row[-2:])], ensure_ascii=False) for row in moved]
        digest = sha256(digest + "\n".join(lines).encode()).digest()
        assert digest == sealed


def _shortest(time: str) -> str:
    """As JSON of Postgres has it: no zeros at the end of a fraction."""
    return f"{time.rstrip('0').rstrip('.')}+00:00" if "." in time else f"{time}+00:00"


def test_the_point_stays_behind_a_transaction_that_commits_late(played_url: str) -> None:
    _run(played_url)
    before = _point(played_url)
    with closing(Session(played_url)) as late:
        with late.connection.transaction():
            give(late, "late", 5, customer_id="zed", currency="JPY", campaign_id="yen")
            _tomorrow(played_url)  # larger numbers, committed before
            report = _run(played_url, settle_s=0.2)
            assert report.sound, _failing(report)
            assert report.held
            assert report.readings[0].transfers > 5, "it read what is new all the same"
            assert _point(played_url) == before
        [(number, largest)] = rows(
            played_url, "SELECT max(transfer_id) FILTER (WHERE cause = 'grant:late'), max(transfer_id) FROM transfers"
        )
    assert number < largest
    report = _run(played_url)
    assert not report.held
    assert report.point.transfer_id == largest
    assert _block_of(played_url, "cause = 'grant:late'")[0] == number
    assert _run(played_url, "full").sound


def test_the_point_sealed_over_an_open_transaction_would_have_rung(played_url: str) -> None:
    """Why the point waits: sealed up to the largest number that is seen, the late transfer is taken for a forged one."""
    with closing(Session(played_url)) as late, closing(connect(played_url)) as connection:
        with late.connection.transaction():
            give(late, "late", 5, customer_id="zed", currency="JPY", campaign_id="yen")
            _tomorrow(played_url)
            [(largest,)] = rows(played_url, "SELECT max(transfer_id) FROM transfers")
            seal(connection, (largest, 0), 1_000)
        assert [changed.transfers_now - changed.transfers_then for changed in changed_blocks(connection)] == [1]


def test_a_run_waits_for_a_transaction_that_ends_in_time(played_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, writers = threading.Event(), blocks._writers

    def watched(connection: Any) -> set[str]:
        found = writers(connection)
        if found:
            seen.set()
        return found

    monkeypatch.setattr(blocks, "_writers", watched)
    settled: list[tuple[int, int] | None] = []
    with closing(Session(played_url)) as late, closing(connect(played_url)) as connection:
        waiter = threading.Thread(target=lambda: settled.append(settle(connection, 30)))
        with late.connection.transaction():
            give(late, "late", 5, customer_id="zed", currency="JPY", campaign_id="yen")
            _tomorrow(played_url)
            waiter.start()
            assert seen.wait(20)
            assert settled == []
        waiter.join(20)
    [(largest,)] = rows(played_url, "SELECT max(transfer_id) FROM transfers")
    assert settled[0] is not None
    assert settled[0][0] == largest


def test_a_prepared_transaction_holds_the_point_too(postgres: Postgres, played_url: str) -> None:
    with psycopg.connect(played_url) as owner:
        owner.execute("LOCK TABLE outbox IN ROW EXCLUSIVE MODE")
        with closing(connect(played_url)) as connection:
            assert settle(connection, 0.1) is None
        owner.rollback()
        with closing(connect(played_url)) as connection:
            assert settle(connection, 0.1) is not None


def test_two_runs_at_once_seal_everything_once(played_url: str) -> None:
    _tomorrow(played_url)
    reports: list[VerifyReport] = []
    threads = [threading.Thread(target=lambda: reports.append(_run(played_url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [report.sound for report in reports] == [True] * 3
    assert _run(played_url, "full").sound
    assert _recorded(played_url)["verify"].runs == 5


def test_a_live_fleet_is_verified_night_after_night(played_url: str) -> None:
    stop, applied = threading.Event(), threading.Semaphore(0)

    def write() -> None:
        with closing(Session(played_url)) as writer:
            give(writer, "g-live", 10**6)
            for number in range(10_000):
                if stop.is_set():
                    break
                order = f"live{number}"
                apply(writer, placed(order, coupons=["K"], credit=7), delivered(order), refunded(order=order))
                applied.release()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        points = []
        for _ in range(6):
            assert applied.acquire(timeout=30), "the writer is stuck"
            report = _run(played_url, block_transfers=BLOCK_TRANSFERS)
            assert report.sound, _failing(report)
            points.append(report.point.transfer_id)
    finally:
        stop.set()
        thread.join()
    assert points == sorted(points)
    assert points[-1] > points[0]
    assert _run(played_url, "full").sound


def test_the_last_run_is_written_down(played_url: str) -> None:
    full = _recorded(played_url)["verify-full"]
    report = _run(played_url)
    run = _recorded(played_url)["verify"]
    assert (run.runs, run.well) == (2, True)
    assert run.well_at == run.began_at > full.began_at
    assert run.figures["point"] == report.point.transfer_id
    assert run.figures["digest"] == report.point.digest
    assert run.figures["full"] is False
    assert 0 <= run.age_s < 60
    assert _recorded(played_url)["verify-full"].runs == full.runs
    corrupt(played_url, "UPDATE balances SET balance = balance + 1 WHERE account = 'breakage'")
    _run(played_url)
    bad = _recorded(played_url)["verify"]
    assert not bad.well
    assert bad.well_at == run.well_at
    assert bad.figures["failed"] == ["balances", "debits-and-credits"]


def test_point_time_and_result_are_metrics(played_url: str) -> None:
    report = _run(played_url)
    corrupt(played_url, "UPDATE job_runs SET well = false WHERE job = 'verify-full'")
    with closing(connect(played_url)) as connection:
        levels = of_backlog(connection)
    assert {key[0] for key in levels} <= METRICS.keys()
    assert levels["incentives_verified_transfer",] == report.point.transfer_id
    assert (levels["incentives_job_well", "verify"], levels["incentives_job_well", "verify-full"]) == (1, 0)
    assert (
        0 <= levels["incentives_job_age_seconds", "verify"] == levels["incentives_job_well_age_seconds", "verify"] < 60
    )
    assert levels["incentives_job_duration_seconds", "verify"] > 0
    assert ("incentives_job_well", "expire") not in levels


BY_THE_ROLE = [
    "INSERT INTO transfer_blocks SELECT block_no + 1000, last_id, last_id, 0, 0, 0, '{}', digest, now() FROM transfer_blocks",
    "UPDATE transfer_blocks SET digest = digest",
    "DELETE FROM transfer_blocks",
    "TRUNCATE transfer_blocks",
    "ALTER TABLE transfer_blocks DISABLE TRIGGER append_only",
    "DELETE FROM job_runs",
    "ALTER FUNCTION seal_block SECURITY INVOKER",
    "CREATE OR REPLACE FUNCTION transfers_digest(bytea, bigint, bigint) RETURNS bytea LANGUAGE sql AS 'SELECT $1'",
]


@pytest.mark.parametrize("statement", BY_THE_ROLE)
def test_the_applications_role_moves_the_point_by_the_function_alone(played_url: str, statement: str) -> None:
    with closing(connect(played_url)) as connection, pytest.raises(pg.InsufficientPrivilege):
        connection.execute(statement.encode())


@pytest.mark.parametrize("statement", ["UPDATE transfer_blocks SET digest = digest", "DELETE FROM transfer_blocks"])
def test_not_even_the_owner_changes_a_block(played_url: str, statement: str) -> None:
    with psycopg.connect(played_url) as owner, pytest.raises(pg.RestrictViolation, match="append-only"):
        owner.execute(statement.encode())


def test_the_function_moves_no_point_back(played_url: str) -> None:
    with closing(connect(played_url)) as connection:
        before = read_point(connection)
        assert seal(connection, (1, 1)) == seal(connection, (0, 0)) == seal(connection, (-5, -5)) == 0
        assert read_point(connection) == before


def test_nobody_else_may_call_the_function(played_url: str) -> None:
    with psycopg.connect(played_url) as owner:
        owner.execute("CREATE ROLE passer_by")
        owner.execute("SET ROLE passer_by")
        with pytest.raises(pg.InsufficientPrivilege):
            owner.execute("SELECT seal_block(1, 1, 1)")
        owner.rollback()


def _point(url: str) -> int:
    with closing(connect(url)) as connection:
        return read_point(connection).transfer_id


def _recorded(url: str) -> dict[Any, Any]:
    with closing(connect(url)) as connection:
        return dict(read_runs(connection))
