"""A message is condemned for what it alone does, never for what every message would meet."""

from __future__ import annotations

import threading

from incentive_fleet.brokers.messages import Delivery
from incentive_fleet.consumers.suspects import DEATHS, DEATHS_ALONE, KILLS_WORKERS, Care, Suspects, digest_of


def test_three_deaths_condemn_it_while_others_are_handled_well() -> None:
    suspects = Suspects()
    for death in range(DEATHS):
        assert suspects.condemned() == []
        suspects.died_with("bad")
        if death == 0:
            suspects.went_well("good")
    assert suspects.condemned() == ["bad"]


def test_alone_it_takes_more() -> None:
    suspects = Suspects()
    for _ in range(DEATHS_ALONE):
        assert suspects.condemned() == []
        suspects.died_with("bad")
    assert suspects.condemned() == ["bad"]


def test_what_kills_with_every_message_is_no_messages_fault() -> None:
    suspects = Suspects()
    for number in range(100):
        suspects.died_with(f"m-{number % 7}")
    assert suspects.condemned() == []


def test_what_goes_well_in_the_end_is_innocent() -> None:
    suspects = Suspects()
    for _ in range(DEATHS - 1):
        suspects.died_with("slow")
    suspects.went_well("other")
    suspects.went_well("slow")
    suspects.died_with("slow")
    assert suspects.condemned() == []


def test_a_careful_worker_tells_what_it_has_in_hand_and_that_it_went_well() -> None:
    told: list[str] = []
    one, two = (Delivery(body, "q", "memory", "", 1, None) for body in (b"1", b"2"))
    care = Care(frozenset({digest_of(two)}), told.append)
    with care.in_hand([one]):
        assert told == [digest_of(one)]
        other = threading.Thread(target=lambda: care.in_hand([two]).__enter__())
        other.start()
        other.join(0.05)
        assert told == [digest_of(one)], "one at a time"
    other.join()
    assert told == [digest_of(one), "", digest_of(two)]
    [(condemned, letter)] = care.condemn([one, two])
    assert (condemned, letter.reason) == (two, KILLS_WORKERS)
