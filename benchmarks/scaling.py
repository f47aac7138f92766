"""How many tasks the service has through a day with a ten-fold peak, by the scaling policies of deploy/aws/services.yaml.

A model and no measurement: queues, tasks and policies in steps of five seconds, the same in every run. What one task does is
half of what one process was measured to do on SQS; how CloudWatch and Application Auto Scaling behave is named beside each
number. `python -m benchmarks.scaling` tries the candidates and writes results/scaling.json, scaling.svg and the tables of
docs/deploy/scaling.md; a test keeps the template's targets equal to what comes out.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

from benchmarks.plots import Line, lines
from benchmarks.reporting import HERE, put, table

PAGE, RESULTS = HERE.parent / "docs" / "deploy" / "scaling.md", HERE / "results"
STEP_S = 5
DAY_S, MINUTE_S = 86_400, 60
EVENTS_A_TASK = 1_200  # a second; one process did 2,436 on a whole core (benchmarks/README.md), a vCPU is half of one
BASE, PEAK = 400.0, 4_000.0  # events/s; 81 million events in the day below, and ten times the base at its peak
START_S = 75  # from the decision to the first receive: a Fargate task is placed, pulls and starts; assumed
DRAIN_S = 25  # INCENTIVES_DRAIN_S: it takes nothing new meanwhile, and is paid for
REPORTED_AFTER_S = 60  # SQS reports once a minute, and a minute late
OUT_POINTS, IN_POINTS = (
    3,
    15,
)  # minutes that target tracking's two alarms look at; "Target tracking", Application Auto Scaling
OUT_COOLDOWN_S, IN_COOLDOWN_S = 60, 300
TASK_USD_H = 0.04048 + 2 * 0.004445  # 1 vCPU and 2 GB, the least that Fargate sells with it; us-east-1, Linux, x86
MIN_TASKS, MAX_TASKS = 2, 12  # two, for one may be lost with its zone
WAIT_MOST_S, WAIT_P99_S = (
    180,
    60,
)  # of any event of the day, and of 99 in 100: the cheapest candidate below both is chosen,
SLOWER = 800  # also when a task does a third less than we think


@dataclass(frozen=True, slots=True)
class Policy:
    """What the template sets. `arrivals`: whether the metric counts what came in the last minute to the backlog."""

    arrivals: bool
    target: int  # messages a task
    age_s: int  # from which age of the oldest message the steps are taken; 0: no steps
    step: int = 2  # tasks at once; twice as many at four times the age


@dataclass(frozen=True, slots=True)
class Day:
    """What came of it. Seconds that events waited, the most messages that did, tasks, and money of the tasks alone."""

    wait_p99_s: float
    wait_most_s: float
    backlog_most: int
    tasks_most: int
    changes: int
    usd: float


@dataclass(frozen=True, slots=True)
class Moment:
    hour: float
    rate: float
    backlog: float
    tasks: int


CANDIDATES = [
    Policy(arrivals, target, age_s)
    for arrivals, target, age_s in product(
        (False, True), (3_000, 12_000, 30_000, 36_000, 43_200, 50_400, 57_600, 72_000), (0, 60, 120)
    )
]


@cache
def load(second: float) -> float:
    """Events a second: a quiet night, a burst out of nowhere at nine (a mailing), an evening that rises to ten times."""
    hour = second / 3_600
    if 9 <= hour < 9.25:
        return PEAK * 0.75
    evening = max(0.0, 1 - abs(hour - 19) / 3)
    lunch = max(0.0, 1 - abs(hour - 12.5) / 2) * 0.2
    return BASE + (PEAK - BASE) * max(evening, lunch)


class Scaling:
    """The two policies of one service. Each wins that wants more tasks; only target tracking takes any away."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._high: deque[float] = deque(maxlen=OUT_POINTS)
        self._low: deque[float] = deque(maxlen=IN_POINTS)
        self._out_at = self._in_at = self._stepped_at = -math.inf

    def decide(self, now: float, desired: int, running: int, metric: float, age_s: float) -> int:
        """The desired count after a minute's metrics; `metric` is per running task."""
        policy, wanted = self._policy, desired
        self._high.append(metric)
        self._low.append(metric)
        if len(self._high) == OUT_POINTS and min(self._high) > policy.target and now - self._out_at >= OUT_COOLDOWN_S:
            wanted = max(wanted, math.ceil(running * metric / policy.target))
            self._out_at = now
        if policy.age_s and age_s >= policy.age_s and now - self._stepped_at >= OUT_COOLDOWN_S:
            wanted = max(wanted, desired + policy.step * (2 if age_s >= 4 * policy.age_s else 1))
            self._stepped_at = now
        quiet = len(self._low) == IN_POINTS and max(self._low) < 0.9 * policy.target
        settled = now - max(self._in_at, self._out_at, self._stepped_at) >= IN_COOLDOWN_S
        if wanted == desired and quiet and settled:
            wanted = max(MIN_TASKS, min(desired, math.ceil(running * max(self._low) / policy.target)))
            self._in_at = now if wanted != desired else self._in_at
        return min(wanted, MAX_TASKS)


def simulate(policy: Policy | None, tasks: int = MIN_TASKS, each: int = EVENTS_A_TASK) -> tuple[Day, list[Moment]]:
    """The day under a policy, or with a fixed number of tasks that do `each` events a second; and a picture of it, a moment
    every five minutes."""
    scaling = Scaling(policy) if policy else None
    desired = running = most = tasks
    starting: deque[float] = deque()  # when each will work
    draining: deque[float] = deque()  # until when each is paid for
    waiting: deque[list[float]] = deque()  # [came at, how many are left], oldest first
    backlog = arrived = paid_s = 0.0
    changes, backlog_most = 0, 0.0
    reports: deque[tuple[float, float, float]] = deque()  # (seen from, messages, age of the oldest)
    waits: list[tuple[float, float]] = []
    moments: list[Moment] = []
    for now in range(0, DAY_S, STEP_S):
        while starting and starting[0] <= now:
            starting.popleft()
            running += 1
        while draining and draining[0] <= now:
            draining.popleft()
        came = load(now) * STEP_S
        waiting.append([now, came])
        backlog, arrived = backlog + came, arrived + came
        backlog -= _serve(waiting, running * each * STEP_S, now, waits)
        backlog_most = max(backlog_most, backlog)
        paid_s += STEP_S * (running + len(starting) + len(draining))
        if now % MINUTE_S == 0:
            age = now - waiting[0][0] if waiting else 0.0
            counted = backlog + (arrived if policy and policy.arrivals else 0.0)
            reports.append((now + REPORTED_AFTER_S, counted, age))
            arrived = 0.0
        while scaling and reports and reports[0][0] <= now:
            _, counted, age = reports.popleft()
            wanted = scaling.decide(now, desired, running, counted / max(running, 1), age)
            starting.extend([now + START_S] * max(0, wanted - desired))
            for _ in range(desired - wanted):
                if starting:
                    starting.pop()
                else:
                    running -= 1
                    draining.append(now + DRAIN_S)
            changes += wanted != desired
            desired, most = wanted, max(most, wanted)
        if now % (5 * MINUTE_S) == 0:
            moments.append(Moment(now / 3_600, load(now), backlog, running))
    p99, longest = _waits(waits)
    usd = paid_s / 3_600 * TASK_USD_H
    return Day(p99, longest, round(backlog_most), most, changes, round(usd, 2)), moments


def _serve(waiting: deque[list[float]], room: float, now: float, waits: list[tuple[float, float]]) -> float:
    """Take the oldest first; notes how long how many have waited. Returns how many were taken."""
    taken = 0.0
    while waiting and taken < room:
        came_at, count = waiting[0]
        part = min(count, room - taken)
        waits.append((now - came_at, part))
        taken += part
        if part == count:
            waiting.popleft()
        else:
            waiting[0][1] = count - part
    return taken


def _waits(waits: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The 99th percentile and the longest, by events."""
    left = 0.01 * sum(count for _, count in waits)
    for wait, count in sorted(waits, reverse=True):
        left -= count
        if left <= 0:
            return wait, max(wait for wait, _ in waits)
    return 0.0, 0.0


def chosen(days: dict[Policy, Day], slower: dict[Policy, Day]) -> Policy:
    """The cheapest under which no event waits too long; of equals, the one that changes its tasks least often.

    With steps, whatever the figures say of them: they are what is left when the other policy's metric is missing.
    """
    fit = [
        policy
        for policy in days
        if policy.age_s
        and all(
            day.wait_most_s <= WAIT_MOST_S and day.wait_p99_s <= WAIT_P99_S for day in (days[policy], slower[policy])
        )
    ]
    return min(fit, key=lambda policy: (days[policy].usd, days[policy].changes, -policy.target))


def _rows(days: dict[Policy, Day], slower: dict[Policy, Day], best: Policy) -> Iterator[list[str]]:
    shown = {best, replace(best, age_s=0)} | {
        policy
        for policy in days
        if policy.age_s == best.age_s and policy.target in {3_000, 12_000, 43_200, 57_600, 72_000}
    }
    yield [
        "policy",
        "p99 wait, s",
        "longest, s",
        "both, a third slower",
        "most waiting",
        "tasks",
        "changes",
        "USD a day",
    ]
    named = [
        (_name(policy) + (" **(chosen)**" if policy == best else ""), days[policy], slower[policy])
        for policy in days
        if policy in shown
    ]
    fixed = [
        (f"{count} tasks all day", simulate(None, count)[0], simulate(None, count, SLOWER)[0])
        for count in (MIN_TASKS, 4)
    ]
    for name, day, slow in [*named, *fixed]:
        yield [
            name,
            f"{day.wait_p99_s:,.0f}",
            f"{day.wait_most_s:,.0f}",
            f"{slow.wait_p99_s:,.0f}, {slow.wait_most_s:,.0f}",
            f"{day.backlog_most:,}",
            f"{day.tasks_most}",
            f"{day.changes}",
            f"{day.usd:.2f}",
        ]


def _name(policy: Policy) -> str:
    metric = "backlog and a minute's arrivals" if policy.arrivals else "backlog alone"
    return f"{metric}, {policy.target:,} a task, " + (f"steps from {policy.age_s} s" if policy.age_s else "no steps")


def main(into: Path = RESULTS, page: Path = PAGE) -> Policy:
    """Try them all, write what came out, and return the one to use."""
    days = {policy: simulate(policy)[0] for policy in CANDIDATES}
    slower = {policy: simulate(policy, each=SLOWER)[0] for policy in CANDIDATES}
    best = chosen(days, slower)
    told = [asdict(policy) | asdict(days[policy]) | {"slower": asdict(slower[policy])} for policy in CANDIDATES]
    result = {"chosen": asdict(best), "days": told}
    (into / "scaling.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _, moments = simulate(best)
    curves = [
        Line("events/s", [(round(moment.hour, 2), moment.rate) for moment in moments]),
        Line("capacity, events/s", [(round(moment.hour, 2), moment.tasks * EVENTS_A_TASK) for moment in moments]),
        Line("backlog / 100", [(round(moment.hour, 2), moment.backlog / 100) for moment in moments]),
    ]
    (into / "scaling.svg").write_text(
        lines("A day with a ten-fold peak", "hour", "see right", curves), encoding="utf-8"
    )
    put(page, "scaling", table(list(_rows(days, slower, best))))
    return best


if __name__ == "__main__":
    print(main())
