"""Examines every part at once, each in a thread and within a bound: a part that hangs or is away is a finding, not an end.

It changes nothing anywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from incentive_fleet.addresses import described, without_logins
from incentive_fleet.brokers.contract import Broker
from incentive_fleet.brokers.registry import BROKERS, configured, none_configured, parts_of
from incentive_fleet.doctor import host
from incentive_fleet.errors import FleetError, SettingsError
from incentive_fleet.findings import NOTE, OK, RISK, Finding, Question, Severity, reached
from incentive_fleet.ledger.address import parameters_of
from incentive_fleet.ledger.doctor import examination as postgres
from incentive_fleet.settings import Settings

PART_S: Final = 20.0  # a part that answers takes under two
ORDER: Final = tuple(Severity)


@dataclass(slots=True)
class _Part:
    """One part that is asked; its thread appends, and whoever waits reads what there is."""

    reached: Question
    whereabouts: str
    ask: Callable[[], Iterator[Finding]]
    within_s: float
    found: list[Finding] = field(default_factory=list)
    failed: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            for finding in self.ask():
                self.found.append(finding)
        except (FleetError, OSError) as error:
            self.failed = without_logins(" ".join(str(error).split()))
        except Exception as error:  # a driver's own: whatever it is, the other parts are to be told of
            self.failed = f"the examination itself failed: {type(error).__name__}: {without_logins(str(error))}"
        finally:
            self.done.set()

    def findings(self, until: float) -> list[Finding]:
        """What came until then, after a line that says whether the part was reached."""
        if not self.done.wait(max(0.0, until - time.monotonic())):
            return [
                self.reached.found(RISK, f"{self.whereabouts}: no whole answer within {self.within_s:g} s"),
                *self.found,
            ]
        if self.failed:
            return [self.reached.found(RISK, self.failed), *self.found]
        return [self.reached.found(OK, self.whereabouts), *self.found]


def checks() -> tuple[Question, ...]:
    """Every check of every part, in the order of the documentation."""
    of_brokers = (check for broker, parts in BROKERS.items() for check in (_reached(broker), *parts.checks()))
    return (*host.checks(), *postgres.checks(), *of_brokers)


def examine(settings: Settings, processes: int, within_s: float = PART_S) -> list[Finding]:
    """What host, database and brokers are set to, worst first, for a fleet of so many worker processes.

    All parts are asked at once; of one that has not answered whole after `within_s` seconds that is said.

    Raises SettingsError for a setting that cannot be read, and where neither database nor broker is set.
    """
    brokers = configured(settings)
    if not settings.database_url and not brokers:
        raise SettingsError(none_configured("and neither is INCENTIVES_DATABASE_URL: there is nothing to examine"))
    _read(settings, brokers)
    parts = [_of_broker(settings, broker, within_s) for broker in brokers]
    if settings.database_url:
        parts.insert(0, _of_database(settings, processes, brokers, within_s))
    until = time.monotonic() + within_s
    for part in parts:
        threading.Thread(target=part.run, name=f"doctor {part.reached.code}", daemon=True).start()
    found = [*host.examine(), *_unset(settings, brokers)]
    found += [finding for part in parts for finding in part.findings(until)]
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def _read(settings: Settings, brokers: list[Broker]) -> None:
    """Every mistake that can be seen without connecting."""
    if settings.database_url:
        parameters_of(settings.database_url)
    if settings.admin_database_url:
        parameters_of(settings.admin_database_url, "INCENTIVES_ADMIN_DATABASE_URL")
    for broker in brokers:
        parts_of(broker).read_settings(settings)


def _of_database(settings: Settings, processes: int, brokers: list[Broker], within_s: float) -> _Part:
    url, destinations = settings.need_database_url(), [broker.destination for broker in brokers]

    def ask() -> Iterator[Finding]:
        return postgres.examine(url, settings.admin_database_url, processes=processes, destinations=destinations)

    return _Part(postgres.REACHED, described(url), ask, within_s)


def _of_broker(settings: Settings, broker: Broker, within_s: float) -> _Part:
    addresses = [described(url) for name in broker.addresses if (url := getattr(settings, name))]
    where = ", ".join(addresses) or broker.whereabouts(settings) or broker.title
    return _Part(_reached(broker), where, lambda: parts_of(broker).examine(settings), within_s)


def _reached(broker: Broker) -> Question:
    return reached(broker.name, broker.variable)


def _unset(settings: Settings, brokers: list[Broker]) -> Iterator[Finding]:
    risk = "Nothing of it was looked at."
    if not settings.database_url:
        yield postgres.REACHED.found(NOTE, "not set", risk=risk)
    for broker in BROKERS:
        if broker not in brokers:
            yield _reached(broker).found(NOTE, "not set", risk=risk)
