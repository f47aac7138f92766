"""High availability, shown by doing: a short run in `make deploy-check`, and over twenty faults in a row behind `make ha`.

Nothing may be lost, nothing may take effect twice, and once the database takes writes again the fleet is back within a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from incentive_fleet.embedded import sample_shop
from incentive_fleet.ledger.connection import CONNECT_TIMEOUT_OF_SEVERAL_S
from incentive_fleet.ledger.leadership import LOOK_S
from incentive_fleet.pausing import DATABASE_MAX_S
from tests.brokers_and_workers import environment_of
from tests.command import incentives
from tests.ha import patroni
from tests.ha.faults import ALL, FAILOVER_S, LEADER_KILLED, REPLACED, SHORT, Fault, Found, suffer
from tests.ha.judgement import come_to_rest, judge, table
from tests.ha.site import site
from tests.parts import ROOT
from tests.shop import calm_balances, open_shop

EVENTS_A_SECOND = 100.0
SHOP = sample_shop.Shop(60_000, seed=11, customers=4_000)  # more than any run publishes
# What is promised after a failover: one back-off, and the time that one host costs which does not answer. The margin is for
# a busy machine, on which a batch, a connection and the watcher's own tenth of a second take longer.
PROMISED_S = DATABASE_MAX_S + CONNECT_TIMEOUT_OF_SEVERAL_S
MARGIN_S = 2.0
TTL_LEAST_S = 20  # Patroni takes no less


@pytest.fixture
def _parts_are_here() -> None:
    if lacking := patroni.missing():
        pytest.skip(lacking)


def undisturbed(url: str, bodies: list[bytes]) -> dict[str, int]:
    open_shop(url, SHOP)
    return calm_balances(url, bodies)


def run(folder: Path, faults: Sequence[Fault], spare_url: str, say: Callable[[str], None]) -> list[Found]:
    """Suffer each fault in turn under load, and fail with everything that it left wrong; the table is told either way."""
    found: list[Found] = []
    with site(folder, SHOP, EVENTS_A_SECOND) as here:
        try:
            here.wait_whole()
            doctor = incentives("doctor", env=environment_of(here.direct))
            assert doctor.code == 0, f"doctor finds a risk in what is to lose nothing: {doctor.out}{doctor.err}"
            for fault in faults:
                found.append(suffer(here, fault))
            come_to_rest(here)
        finally:
            here.mend()
            say(table(found, here))
        wrong = judge(here, undisturbed(spare_url, here.load.bodies))
    assert not wrong, "\n".join(wrong)
    return found


def assert_back_in_time(found: Sequence[Found]) -> None:
    assert found[0].fault is LEADER_KILLED
    assert found[0].back_after is not None, "nobody noticed that the leader was killed"
    late = [
        (one.fault.kind, one.back_after)
        for one in found
        if one.fault.of_database and (one.back_after or 0) > PROMISED_S + MARGIN_S
    ]
    assert not late, f"the database was there again, and the fleet was away for longer than promised: {late}"


def assert_replaced_leader_is_left(found: Sequence[Found]) -> None:
    """The fleet waits for a COMMIT until it looks, and each host may take its time; not until the fault is mended."""
    one = next(one for one in found if one.fault is REPLACED)
    assert one.held_up <= one.no_writes + LOOK_S + PROMISED_S + MARGIN_S, (
        "the fleet waited for a leader that was replaced"
    )


def test_the_example_replicates_synchronously_and_replaces_a_leader_as_soon_as_patroni_allows() -> None:
    in_force = yaml.safe_load(patroni.EXAMPLE.read_text(encoding="utf-8"))["bootstrap"]["dcs"]
    settings = in_force["postgresql"]["parameters"]
    assert (in_force["synchronous_mode"], in_force["synchronous_mode_strict"]) == (True, True)
    assert [settings[name] for name in ("synchronous_commit", "fsync", "full_page_writes")] == ["on"] * 3
    assert in_force["ttl"] == TTL_LEAST_S
    assert in_force["loop_wait"] + 2 * in_force["retry_timeout"] <= in_force["ttl"]
    assert in_force["ttl"] < FAILOVER_S, "the runs must keep a leader away until another one leads"


def test_the_page_tells_of_every_fault_what_it_cost() -> None:
    page = (ROOT / "docs/recovery.md").read_text(encoding="utf-8")
    assert [fault.kind for fault in ALL if f"| {fault.kind} | {fault.lasts_s:g} s |" not in page] == []
    assert f"within {PROMISED_S:g} s" in page


@pytest.mark.usefixtures("_parts_are_here")
@pytest.mark.deploy
@pytest.mark.timeout(480)
def test_a_leader_a_node_and_a_host_that_die_and_a_cut_cost_seconds_and_nothing_else(
    tmp_path: Path, database_url: str, say: Callable[[str], None]
) -> None:
    assert_back_in_time(run(tmp_path, SHORT, database_url, say))


@pytest.mark.usefixtures("_parts_are_here")
@pytest.mark.ha
@pytest.mark.timeout(2_400)
def test_over_twenty_faults_in_a_row_cost_seconds_and_nothing_else(
    tmp_path: Path, database_url: str, say: Callable[[str], None]
) -> None:
    found = run(tmp_path, ALL, database_url, say)
    assert_back_in_time(found)
    assert_replaced_leader_is_left(found)
