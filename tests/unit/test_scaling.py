"""The model of scaling says the same every time, and what it says of queues and tasks adds up."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from benchmarks import scaling
from benchmarks.scaling import BASE, DAY_S, EVENTS_A_TASK, PAGE, PEAK, RESULTS, STEP_S, Policy, Scaling, load, simulate


def test_what_is_published_is_what_comes_out_today(tmp_path: Path) -> None:
    page = tmp_path / PAGE.name
    shutil.copy(PAGE, page)
    scaling.main(tmp_path, page)
    assert (tmp_path / "scaling.json").read_text() == (RESULTS / "scaling.json").read_text()
    assert (tmp_path / "scaling.svg").read_text() == (RESULTS / "scaling.svg").read_text()
    assert page.read_text() == PAGE.read_text()


def test_the_day_s_peak_is_ten_times_its_base() -> None:
    rates = [load(second) for second in range(0, DAY_S, STEP_S)]
    assert (min(rates), max(rates)) == (BASE, PEAK)
    assert PEAK == 10 * BASE


def test_enough_tasks_leave_nothing_waiting_and_too_few_leave_what_they_cannot_do() -> None:
    enough, _ = simulate(None, int(PEAK / EVENTS_A_TASK) + 1)
    assert (enough.backlog_most, enough.wait_most_s, enough.changes) == (0, 0, 0)
    none, moments = simulate(None, 1)
    came = sum(load(second) * STEP_S for second in range(0, DAY_S, STEP_S))
    done = sum(min(EVENTS_A_TASK, moment.rate) if moment.backlog == 0 else EVENTS_A_TASK for moment in moments) * 300
    assert abs(moments[-1].backlog - (came - done)) < 0.05 * came
    assert none.usd == round(24 * scaling.TASK_USD_H, 2)


def test_more_tasks_come_after_three_minutes_above_the_target_and_go_after_fifteen_below() -> None:
    asked = Scaling(Policy(arrivals=True, target=100, age_s=0))
    assert [asked.decide(60.0 * minute, 2, 2, 300, 0) for minute in range(3)] == [2, 2, 6]
    asked = Scaling(Policy(arrivals=True, target=100, age_s=0))
    assert [asked.decide(60.0 * minute, 6, 6, 40, 0) for minute in range(15)] == [6] * 14 + [3]


def test_an_old_message_adds_tasks_at_once_and_a_very_old_one_twice_as_many() -> None:
    asked = Scaling(Policy(arrivals=True, target=100, age_s=120))
    assert asked.decide(0, 2, 2, 0, 119) == 2
    assert asked.decide(60, 2, 2, 0, 120) == 4
    assert asked.decide(120, 4, 4, 0, 480) == 8


def rows(page: Path, name: str) -> dict[str, list[str]]:
    """The table between two markers, by its first column."""
    text = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]
    return {first: rest for first, *rest in cells}


def test_the_sizing_table_says_what_the_measured_costs_say() -> None:
    needs, sizing = (
        rows(Path(scaling.__file__).with_name("SCALE.md"), "needs"),
        rows(PAGE.with_name("README.md"), "sizing"),
    )
    shared = needs.keys() & sizing.keys()
    assert len(shared) == 9, "seven rows, the head and the rule"
    assert {name: sizing[name] for name in shared} == {name: needs[name] for name in shared}
    peaks = [int(cell.split(", ")[1].replace(",", "")) for cell in needs["events/s: mean, peak"]]
    busy = scaling.Policy(**json.loads((RESULTS / "scaling.json").read_text())["chosen"]).target / 60
    tasks = [str(max(scaling.MIN_TASKS, math.ceil(peak / busy))) for peak in peaks]
    assert sizing["tasks of consume at the peak (1 vCPU, 2 GB, SQS)"] == tasks
