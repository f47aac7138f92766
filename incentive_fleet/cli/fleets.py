"""What `consume` and `answer-quotes` do alike: what comes before their workers, and how their run ends. It prints the result.

The workers and what goes on beside them are the commands' own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from incentive_fleet.brokers import registry
from incentive_fleet.cli import interrupts
from incentive_fleet.cli.command_line import database_url
from incentive_fleet.cli.printing import emit, say

if TYPE_CHECKING:
    from incentive_fleet.brokers.contract import Broker
    from incentive_fleet.consumers.supervisor import Fleet
    from incentive_fleet.settings import Settings
    from incentive_fleet.stopping import Stop

log = logging.getLogger(__name__)


def begin(source: str, values: Settings) -> tuple[list[Broker], Stop]:
    """The brokers of `--from`, and the stop that signals set. A mistake in the settings is one sentence now, rather than in
    each worker."""
    from incentive_fleet.logs import start_logging

    brokers = list(registry.BROKERS) if source == "all" else [registry.by_source(source)]
    for broker in brokers:
        registry.parts_of(broker).read_settings(values)
    database_url(values)
    start_logging(values.log_level, values.log_format)
    return brokers, interrupts.serve(values.drain_s)


def run(
    fleet: Fleet, beside: Sequence[AbstractContextManager[object]], output: str, told: Callable[[dict[str, int]], str]
) -> None:
    """Run the workers within what goes on `beside` them, then print what they did; exits 1 where it did not end well."""
    from incentive_fleet.stopping import DrainCut

    interrupts.on_cut(fleet.kill)
    started = time.perf_counter()
    try:
        with ExitStack() as around:
            for one in beside:
                around.enter_context(one)
            healthy = fleet.run()
    except DrainCut as error:
        log.error("%s", error)
        healthy = False
    counts = dict(sorted(fleet.counts().items()))
    emit(
        {"counts": counts, "seconds": round(time.perf_counter() - started, 3), "healthy": healthy},
        output,
        lambda: say(told(counts)),
    )
    if not healthy:
        raise SystemExit(1)
