"""A worker of the fleet, the product's own, with a stopwatch around its transport. `python -m benchmarks.fleet_worker rabbitmq`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import stopwatch
from incentive_fleet.consumers import worker
from incentive_fleet.consumers.transport import Delivery, Outcome, Transport


class Timed:
    """A transport that notes when deliveries come and when they are settled, and is otherwise the one inside."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def receive(self, max_deliveries: int, wait_s: float) -> list[Delivery]:
        deliveries = self._transport.receive(max_deliveries, wait_s)
        if deliveries:
            stopwatch.delivered()
        return deliveries

    def settle(self, outcomes: Sequence[tuple[Delivery, Outcome]]) -> None:
        ids = [delivery.message_id for delivery, _ in outcomes]
        stopwatch.committed(ids)  # settling is what follows COMMIT
        self._transport.settle(outcomes)
        stopwatch.acknowledged(ids)


if __name__ == "__main__":
    open_transport = worker.open_transport
    worker.open_transport = lambda source, settings: Timed(open_transport(source, settings))  # type: ignore[return-value]
    sys.exit(worker.main(sys.argv[1:]))
