"""A window of confirms: what is taken, refused or returned is known by its delivery tag, in whatever order answers come."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from incentive_fleet.brokers.rabbitmq.confirms import Confirms, Fate


def test_a_return_or_a_refusal_fails_its_publication_and_no_other() -> None:
    confirms = Confirms(last_tag=4)
    tags = [confirms.sent("exchange", key, b"") for key in "abac"]
    assert tags == [5, 6, 7, 8]
    confirms.on_return("exchange", "b", b"")
    confirms.on_confirm(6, multiple=True, acknowledged=True)
    confirms.on_confirm(8, multiple=False, acknowledged=False)
    assert confirms.waiting == 1
    confirms.on_confirm(7, multiple=False, acknowledged=True)
    assert confirms.waiting == 0
    assert [confirms.fate(tag) for tag in tags] == [Fate.TAKEN, Fate.RETURNED, Fate.TAKEN, Fate.NACKED]
    assert confirms.refused == {6: Fate.RETURNED, 8: Fate.NACKED}


def test_what_is_not_answered_is_not_taken() -> None:
    confirms = Confirms()
    tags = [confirms.sent("", "queue", b"%d" % number) for number in range(3)]
    confirms.on_return("", "queue", b"1")
    confirms.on_confirm(1, multiple=False, acknowledged=True)
    assert [confirms.fate(tag) for tag in tags] == [Fate.TAKEN, Fate.UNKNOWN, Fate.UNKNOWN]


def test_a_return_fails_every_equal_that_waits_for_it_names_no_tag() -> None:
    confirms = Confirms()
    early = confirms.sent("e", "k", b"same")
    confirms.on_confirm(early, multiple=False, acknowledged=True)
    equals = [confirms.sent("e", "k", b"same"), confirms.sent("e", "k", b"same")]
    others = [confirms.sent("e", "k", b"other"), confirms.sent("e", "l", b"same"), confirms.sent("f", "k", b"same")]
    confirms.on_return("e", "k", b"same")
    confirms.on_confirm(others[-1], multiple=True, acknowledged=True)
    assert [confirms.fate(tag) for tag in (early, *equals)] == [Fate.TAKEN, Fate.RETURNED, Fate.RETURNED]
    assert {confirms.fate(tag) for tag in others} == {Fate.TAKEN}


def test_a_return_of_nothing_that_waits_is_an_error_of_ours() -> None:
    confirms = Confirms()
    confirms.sent("e", "k", b"body")
    with pytest.raises(AssertionError, match="not on its way"):
        confirms.on_return("e", "k", b"another")


@dataclass
class Sent:
    tag: int
    key: str
    body: bytes
    fate: Fate  # as the broker decided


@pytest.mark.parametrize("seed", range(50))
def test_a_window_that_slides_tells_each_fate_however_answers_come(seed: int) -> None:
    """A model of the broker: it decides each fate on arrival, returns before it confirms, and confirms in runs or alone."""
    chance = random.Random(seed)
    confirms, answered = Confirms(), 0
    sent: list[Sent] = []
    open_: list[Sent] = []
    for number in range(300):
        key = chance.choice(("routed", "full", "nowhere"))
        fate = {"routed": Fate.TAKEN, "full": Fate.NACKED, "nowhere": Fate.RETURNED}[key]
        one = Sent(confirms.sent("e", key, b"%d" % (number % 7)), key, b"%d" % (number % 7), fate)
        sent.append(one)
        open_.append(one)
        if fate is Fate.RETURNED:
            confirms.on_return("e", key, one.body)
        while open_ and (len(open_) > 40 or chance.random() < 0.5):
            if chance.random() < 0.5:  # a run of one kind from the front
                acknowledged = open_[0].fate is not Fate.NACKED
                run = [open_.pop(0)]
                while open_ and (open_[0].fate is not Fate.NACKED) == acknowledged and chance.random() < 0.8:
                    run.append(open_.pop(0))
                confirms.on_confirm(run[-1].tag, multiple=True, acknowledged=acknowledged)
            else:
                run = [open_.pop(chance.randrange(len(open_)))]
                confirms.on_confirm(run[0].tag, multiple=False, acknowledged=run[0].fate is not Fate.NACKED)
            answered += len(run)
            assert confirms.waiting == len(sent) - answered
    assert [confirms.fate(one.tag) for one in sent if one not in open_] == [
        one.fate for one in sent if one not in open_
    ]
    assert {confirms.fate(one.tag) for one in open_} <= {Fate.UNKNOWN}
