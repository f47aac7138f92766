"""`incentives demo`, small: with every part, and on a machine that has no RabbitMQ."""

from __future__ import annotations

import pytest

from incentive_fleet.embedded import running
from incentive_fleet.embedded.demo import play, settings_of
from tests.command import incentives


def test_the_demo_ends_in_equal_balances() -> None:
    ran = incentives("demo", "--orders", "20", "--format", "json")
    assert (ran.code, ran.document["sound"], ran.document["equal_to_calm_run"]) == (0, True, True), ran.err
    assert set(ran.document["published"]) == {"sns", "rabbitmq"}
    assert "verifying the ledger" in ran.err, "off a terminal each step is told once"


def test_without_rabbitmq_no_outcome_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_HOME", "/nowhere")
    with running(tell=lambda sentence: None) as parts, settings_of(parts) as settings:
        assert parts.rabbitmq is None
        story = play(parts, settings, orders=20, seed=1, tell=lambda sentence: None)
    assert story.equal_to_calm_run
    assert story.outcomes.unpublished is not None
    assert not any(story.outcomes.unpublished.values())
