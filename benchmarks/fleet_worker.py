"""A worker of the fleet, the product's own, with a stopwatch around its transport. `python -m benchmarks.fleet_worker rabbitmq`."""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import stopwatch
from incentive_fleet.brokers.contract import OnTaken, Transport, nobody_asks
from incentive_fleet.brokers.messages import Delivery, Disposition
from incentive_fleet.consumers import worker


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

    def settle(self, dispositions: Sequence[tuple[Delivery, Disposition]], on_taken: OnTaken = nobody_asks) -> None:
        ids = [delivery.message_id for delivery, _ in dispositions]
        stopwatch.committed(ids)  # settling is what follows COMMIT
        self._transport.settle(dispositions, on_taken)
        stopwatch.acknowledged(ids)


def count_calls() -> None:
    """Count the calls of AWS' API by their name; the counts are written when the worker ends."""
    from botocore.client import BaseClient

    calls: Counter[str] = Counter()
    make = BaseClient._make_api_call  # type: ignore[attr-defined]

    def counted(client: Any, operation: str, arguments: Any) -> Any:
        calls[operation] += 1  # several threads: a lost count in a million would not matter
        return make(client, operation, arguments)

    BaseClient._make_api_call = counted  # type: ignore[attr-defined]
    folder = os.environ[stopwatch.FOLDER]
    atexit.register(lambda: Path(f"{folder}.{os.getpid()}.calls").write_text(json.dumps(calls)))


if __name__ == "__main__":
    if "sqs" in sys.argv[1]:
        count_calls()
    open_transport = worker.open_transport
    worker.open_transport = lambda broker, settings, stop: Timed(open_transport(broker, settings, stop))
    sys.exit(worker.main(sys.argv[1:]))
