"""How old the oldest message of each SQS queue is. SQS itself does not tell; CloudWatch does, a minute or two late.

It asks CloudWatch once a minute at the most, beside whoever reads, whom it keeps for a moment and no longer. Without the permission
`cloudwatch:GetMetricData` nothing but the ages is missing: one line in the log says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from incentive_fleet.brokers.aws.client import available, cloudwatch_client
from incentive_fleet.errors import FleetError
from incentive_fleet.settings import Settings, variable

EVERY_S: Final = 60.0  # SQS's own figures come to CloudWatch once a minute, and each asking costs money
KEPT_S: Final = 3 * EVERY_S  # what was read longer ago is too old to be told
WAIT_S: Final = 2.0  # for an answer; a later look finds what it brought
WINDOW: Final = timedelta(minutes=10)  # in which the latest figure is looked for
PERIOD_S: Final = 60
QUEUES_MAX: Final = 500  # metrics that one GetMetricData takes

log = logging.getLogger(__name__)


class QueueAges:
    """Of these queues. One thread at a time; it reads in a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        queues: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        wait_s: float = WAIT_S,
    ) -> None:
        assert len(queues) <= QUEUES_MAX
        self._settings, self._queues, self._clock, self._wait_s = settings, tuple(queues), clock, wait_s
        self._client: Any = None
        self._asked: Future[None] | None = None
        self._asked_at = self._read_at = float("-inf")
        self._ages: dict[str, float] = {}
        self._failed = False

    def read(self) -> Mapping[str, float]:
        """Seconds by queue, of those that CloudWatch tells: it forgets a queue that nothing moves in for hours."""
        under_way = self._asked is not None and not self._asked.done()
        if not under_way and self._clock() - self._asked_at >= EVERY_S:
            self._asked, self._asked_at = Future(), self._clock()
            threading.Thread(target=self._answer, args=(self._asked,), name="ages of queues", daemon=True).start()
            wait([self._asked], self._wait_s)
        return self._ages if self._clock() - self._read_at < KEPT_S else {}

    def close(self) -> None:
        """See contract.py."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _answer(self, asked: Future[None]) -> None:
        try:
            self._ages, self._read_at = self._ask(), self._clock()
        except FleetError as error:
            self._tell(str(error), trace=False)
        except Exception as error:
            self._tell(type(error).__qualname__, trace=True)
        else:
            self._failed = False
        finally:
            asked.set_result(None)

    def _tell(self, words: str, *, trace: bool) -> None:
        if not self._failed:
            off = f"{variable('cloudwatch_ages')}=off asks no more"
            log.warning("ages of queues cannot be read", extra={"error": f"{words}; {off}"}, exc_info=trace)
        self._failed = True

    def _ask(self) -> dict[str, float]:
        client = self._client = self._client or cloudwatch_client(self._settings)
        now = datetime.now(UTC)
        with available():
            answer = client.get_metric_data(
                MetricDataQueries=[_query(number, queue) for number, queue in enumerate(self._queues)],
                StartTime=now - WINDOW,
                EndTime=now,
                ScanBy="TimestampDescending",
            )
        latest = {one["Id"]: float(one["Values"][0]) for one in answer["MetricDataResults"] if one["Values"]}
        return {queue: latest[f"q{number}"] for number, queue in enumerate(self._queues) if f"q{number}" in latest}


def _query(number: int, queue: str) -> dict[str, Any]:
    metric = {
        "Namespace": "AWS/SQS",
        "MetricName": "ApproximateAgeOfOldestMessage",
        "Dimensions": [{"Name": "QueueName", "Value": queue}],
    }
    return {"Id": f"q{number}", "MetricStat": {"Metric": metric, "Period": PERIOD_S, "Stat": "Maximum"}}
