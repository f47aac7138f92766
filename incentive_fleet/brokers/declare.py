"""Puts the topology onto the brokers that are configured, and reports where they drifted from it. It never prints."""

from __future__ import annotations

from collections.abc import Iterable

from incentive_fleet.brokers.contract import Broker
from incentive_fleet.brokers.registry import BROKERS, configured, none_configured, parts_of
from incentive_fleet.brokers.topology import Change, DriftReport
from incentive_fleet.errors import SettingsError
from incentive_fleet.settings import Settings


def apply(settings: Settings) -> list[Change]:
    """Create what is missing and set what may be set; empty when all was in place.

    Idempotent. A change whose action is "refused" is drift that only a person may resolve: RabbitMQ cannot change the
    arguments of a queue that exists. Raises SettingsError when no broker is configured and BrokerUnavailable when one is
    away; running it again helps.
    """
    return [change for broker in _needed(settings) for change in parts_of(broker).apply_topology(settings)]


def check(settings: Settings) -> DriftReport:
    """Compare the brokers with the topology; changes nothing. Raises SettingsError and BrokerUnavailable as `apply` does."""
    needed = _needed(settings)
    return _joined(
        parts_of(broker).check_topology(settings)
        if broker in needed
        else DriftReport((), (f"Nothing was looked at on {broker.title}, for {broker.variable} is not set.",))
        for broker in BROKERS
    )


def check_policies(settings: Settings, brokers: Iterable[Broker]) -> DriftReport:
    """What the policies of the brokers' operators can take from our queues. Raises SettingsError and BrokerUnavailable."""
    return _joined(parts_of(broker).check_policies(settings) for broker in brokers)


def _joined(reports: Iterable[DriftReport]) -> DriftReport:
    looked = list(reports)
    return DriftReport(
        tuple(line for report in looked for line in report.drift),
        tuple(line for report in looked for line in report.unseen),
    )


def _needed(settings: Settings) -> list[Broker]:
    found = configured(settings)
    if not found:
        raise SettingsError(none_configured("there is no broker to look at"))
    return found
