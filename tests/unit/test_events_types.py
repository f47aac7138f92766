"""A type of event is known everywhere or nowhere: the tables and texts that mypy cannot see are held to `TYPES`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from incentive_fleet.brokers.topology import CATCH_ALL, SOURCES
from incentive_fleet.events.models import TYPES
from incentive_fleet.events.outcome_parts import OutcomeCause
from incentive_fleet.events.outcomes import OUTCOME_OF, OUTCOME_TYPES, OutcomeEnvelope
from incentive_fleet.ledger import probe, verify

CHECKS = (Path(verify.__file__).parent / "checks.sql").read_text(encoding="utf-8")


NOTICED = "credit-grant-requested.v1"  # of no order: it brings a notice


def test_each_type_has_a_queue_of_its_own() -> None:
    assert [type for type, _ in SOURCES] == list(TYPES)
    assert len({queue for _, queue in SOURCES}) == len(SOURCES)
    assert CATCH_ALL in TYPES


def test_each_type_brings_an_outcome_and_can_be_its_cause() -> None:
    assert OUTCOME_OF.keys() == TYPES.keys() - {NOTICED}
    assert (
        set(OUTCOME_OF.values())
        == OUTCOME_TYPES.keys()
        == set(get_args(OutcomeEnvelope.model_fields["type"].annotation))
    )
    assert set(get_args(OutcomeCause.model_fields["type"].annotation)) == TYPES.keys() - {NOTICED}


@pytest.mark.parametrize("type", TYPES)
def test_verification_knows_the_digest_of_each_type(type: str) -> None:
    digest = CHECKS[CHECKS.index("sha256(") :].split(";")[0]
    assert f"'{type}'" in digest


def test_the_probe_sends_one_of_each_type() -> None:
    assert {event.type for stage in probe._stages("p") for event in stage} == TYPES.keys()
