"""INCENTIVES_ALLOWED_SOURCES: how the setting is read, and which events it admits on which queue."""

from __future__ import annotations

import json

import pytest

from incentive_fleet.allowed_sources import WORDS, read_allowed_sources
from incentive_fleet.brokers import registry
from incentive_fleet.consumers.admission import admission_of, admitted
from incentive_fleet.dead_letters.arrivals import explain
from incentive_fleet.errors import Malformed, SettingsError
from incentive_fleet.events.models import TYPES
from incentive_fleet.events.reasons import Reason
from incentive_fleet.settings import Settings
from tests.dead_letter_world import arrival
from tests.event_bodies import DELIVERY, ORDER, REFUND, Document

NAME = "INCENTIVES_ALLOWED_SOURCES"
BY_QUEUE = "/shop, /pos/*; delivery-completed = /courier; order-refunded = *"
QUEUES = {
    "order-placed": ["incentives-order-placed", "incentives.order-placed"],
    "order-refunded": ["incentives-order-refunded", "incentives.order-refunded"],
    "delivery-completed": ["incentives-delivery-completed", "incentives.delivery-completed"],
}
FILE = "events.jsonl"


def read(text: str) -> dict[str, tuple[str, ...]]:
    return {word: found.sources for word, found in read_allowed_sources(text).items()}


def everywhere(*sources: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(WORDS, sources)


@pytest.mark.parametrize(
    ("text", "lists"),
    [
        ("/shop", everywhere("/shop")),
        (" /shop , /pos ;", everywhere("/shop", "/pos")),
        ("https://shop.example/?a=b,urn:shop:1", everywhere("https://shop.example/?a=b", "urn:shop:1")),
        ("order-placed=/shop", {"order-placed": ("/shop",)}),
        ("order-placed = a=b", {"order-placed": ("a=b",)}),
        ("order-placed: /shop", everywhere("order-placed: /shop")),  # no `=`, so it is a source
        ("order-placed=/shop;*", everywhere("*") | {"order-placed": ("/shop",)}),
        ("\n  /shop, /pos\n  delivery-completed = /courier\n", everywhere("/shop", "/pos") | {"delivery-completed": ("/courier",)}),
        ("/a/*", everywhere("/a/*")),
        ("/" + "s" * 199, everywhere("/" + "s" * 199)),
    ],
)  # fmt: skip
def test_it_is_read_as_the_page_says(text: str, lists: dict[str, tuple[str, ...]]) -> None:
    assert read(text) == lists


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("oder-placed=/shop", "there is no queue 'oder-placed', but order-placed, order-finalized, order-cancelled"),
        ("incentives.order-placed=/shop", "there is no queue 'incentives.order-placed', but order-placed"),
        ("Order-Placed=/shop", "there is no queue 'Order-Placed'"),
        ("order-placed=", "in the list of order-placed a source is empty"),
        ("/shop,,/pos", "in the list for all queues a source is empty"),
        ("/shop,", "in the list for all queues a source is empty"),
        ("/shop;/pos", "the list for all queues stands there twice"),
        ("order-placed=/a\norder-placed=/b", "the list of order-placed stands there twice"),
        ("/a/*/b", "in the list for all queues '/a/*/b' has a * before its end"),
        ("/a**", "'/a**' has a * before its end"),
        ("/a\x07", "'/a\\x07' is no source"),
        ("/" + "s" * 200, "is no source: 1 to 200 code points"),
        (" ; ", "there is no source in it; leave it unset to allow all"),
        (",".join(f"/{n}" for n in range(1_001)), "are 1001 sources: at most 1000 are allowed"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_that_names_the_setting(text: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({NAME: text})
    assert str(caught.value).startswith(f"{NAME} is ")
    assert told in str(caught.value)


def sent_by(source: str, document: Document) -> bytes:
    return json.dumps(document | {"source": source}).encode()


def refused(text: str, source: str, document: Document, queue: str) -> str:
    """Why the event is not admitted on that queue, or ""."""
    try:
        admitted(sent_by(source, document), queue, admission_of(Settings(allowed_sources=text)))
    except Malformed as error:
        return error.detail if error.reason == Reason.SOURCE_NOT_ALLOWED else "for something else"
    return ""


@pytest.mark.parametrize(
    ("source", "document", "word", "queue_that_refuses"),
    [
        ("/shop", ORDER, "order-placed", ""),
        ("/pos/7", ORDER, "order-placed", ""),
        ("/pos/", ORDER, "order-placed", ""),
        ("/pos", ORDER, "order-placed", "order-placed"),
        ("/shop/", ORDER, "order-placed", "order-placed"),
        ("/Shop", ORDER, "order-placed", "order-placed"),
        ("x/pos/7", ORDER, "order-placed", "order-placed"),
        ("*", ORDER, "order-placed", "order-placed"),
        ("/courier", DELIVERY, "delivery-completed", ""),
        ("/shop", DELIVERY, "delivery-completed", "delivery-completed"),
        ("/whoever", REFUND, "order-refunded", ""),
        # Sent past the topic, to a queue of another type: both lists must hold it.
        ("/courier", ORDER, "delivery-completed", "order-placed"),
        ("/shop", ORDER, "delivery-completed", "delivery-completed"),
        ("/shop", REFUND, "order-placed", ""),
        ("/whoever", REFUND, "order-placed", "order-placed"),
    ],
)
def test_a_source_is_held_against_the_queue_that_it_came_by_on_every_broker(
    source: str, document: Document, word: str, queue_that_refuses: str
) -> None:
    for queue in QUEUES[word]:
        told = refused(BY_QUEUE, source, document, queue)
        assert bool(told) == bool(queue_that_refuses), queue
        assert not told or told.startswith(f"source is '{source}': the queue {queue_that_refuses} takes '")
        assert not told or told.endswith(f" alone ({NAME})")


def test_where_there_is_no_queue_that_of_the_type_decides() -> None:
    assert not refused(BY_QUEUE, "/courier", DELIVERY, FILE)
    assert "the queue delivery-completed takes '/courier' alone" in refused(BY_QUEUE, "/shop", DELIVERY, FILE)
    assert "the queue order-placed takes '/shop', '/pos/*' alone" in refused(BY_QUEUE, "/courier", ORDER, FILE)


def test_a_queue_without_a_list_takes_every_source() -> None:
    assert not refused("order-placed=/shop", "/whoever", DELIVERY, QUEUES["delivery-completed"][0])
    assert refused("order-placed=/shop", "/whoever", ORDER, QUEUES["order-placed"][0])


def test_unset_or_empty_admits_all() -> None:
    for environment in ({}, {NAME: ""}):
        assert admission_of(Settings.from_environment(environment)) is None
    assert admitted(sent_by("/whoever", ORDER), "q", None).source == "/whoever"


def test_queues_follow_the_prefix() -> None:
    admission = admission_of(Settings(allowed_sources="delivery-completed=/courier", prefix="shop"))
    assert admission is not None
    assert set(admission.of_queue) == {"shop-delivery-completed", "shop.delivery-completed"}
    assert set(registry.queue_types(Settings()).values()) == set(TYPES)


def test_a_long_list_is_not_told_whole() -> None:
    told = refused(",".join(f"/{n}" for n in range(1_000)), "/whoever", ORDER, FILE)
    assert "'/0', '/1', '/2', '/3', '/4' and 995 more alone" in told


def test_a_copy_without_room_for_its_reason_is_explained_by_its_source() -> None:
    """The collector finds out by itself why the consumer refused it."""
    copy = arrival(sent_by("/whoever", ORDER), queue=QUEUES["order-placed"][0], headers={}, crowded=True)
    explanation = explain(copy, admission_of(Settings(allowed_sources=BY_QUEUE)))
    assert (explanation.reason, "source is '/whoever'" in explanation.detail) == ("source-not-allowed", True)
    assert explain(copy, None).reason == "unexplained"
