"""Files of every kind, as editors and spreadsheets save them: with a byte order mark, gzipped, in UTF-16, damaged."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from incentive_fleet.brokers.messages import Message
from incentive_fleet.dead_letters.edit_plan import read_values
from incentive_fleet.dead_letters.exchange import read_letters
from incentive_fleet.embedded import sample_shop
from incentive_fleet.errors import Refused
from incentive_fleet.ledger.grant_file import read_grants
from incentive_fleet.producers.event_file import read_messages
from incentive_fleet.text_files import open_text, read_text
from tests.command import incentives

SHOP = sample_shop.Shop(20, seed=3)
EVENTS = "".join(body.decode() + "\n" for _, body in sample_shop.events(SHOP))
GRANT = "key,customer_id,currency,amount,campaign_id,expires_at\ng-1,c-1,EUR,500,hello,\n"
OTHERS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le")

LETTER = json.dumps(
    {
        "format": "incentives-dead-letter/1",
        **{"transport": "sqs", "source_queue": "q", "dead_letter_queue": "q-dlq", "reason": "not-json", "detail": ""},
        **{"headers": {}, "envelope": {}, "body": {"encoding": "utf-8", "text": "x"}, "edited_body": None},
    }
)
VALUES = "id,data.currency\n1,EUR\n"
Save = Callable[[str, str], Path]


@pytest.fixture(params=[False, True], ids=["plain", "gzip"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Save:
    numbers = itertools.count()

    def write(text: str, encoding: str) -> Path:
        path = tmp_path / f"file-{next(numbers)}{'.gz' if request.param else ''}"
        content = text.encode(encoding)
        path.write_bytes(gzip.compress(content) if request.param else content)
        return path

    return write


def test_a_mark_in_front_changes_nothing_for_any_reader(save: Save) -> None:
    plain, marked = (save(EVENTS, encoding) for encoding in ("utf-8", "utf-8-sig"))
    assert list(read_messages(plain)) == list(read_messages(marked))
    assert all(isinstance(message, Message) for _, message in read_messages(marked))
    assert list(read_grants(save(GRANT, "utf-8"))) == list(read_grants(save(GRANT, "utf-8-sig")))
    assert read_text(save(sample_shop.CAMPAIGNS, "utf-8-sig")) == sample_shop.CAMPAIGNS


def test_only_the_first_mark_is_one(save: Save) -> None:
    with open_text(save("\ufeffa", "utf-8-sig")) as file:
        assert file.read() == "\ufeffa".encode()
    for text in ("", "a", "\ufeff"):
        with open_text(save(text, "utf-8")) as file:
            assert file.read().decode() == text.removeprefix("\ufeff")


def test_a_mark_in_front_changes_nothing_for_values_and_letters(save: Save) -> None:
    assert (
        read_values(save(VALUES, "utf-8-sig"))
        == read_values(save(VALUES, "utf-8"))
        == ("id", {"1": {"data.currency": "EUR"}})
    )
    kept, marked = (list(read_letters(save(LETTER, encoding), None)) for encoding in ("utf-8", "utf-8-sig"))
    assert kept == marked
    assert len(kept) == 1


READERS: tuple[tuple[str, Callable[[Path], object]], ...] = (
    (EVENTS, lambda path: list(read_messages(path))),
    (GRANT, lambda path: list(read_grants(path))),
    (sample_shop.CAMPAIGNS, read_text),
    (VALUES, read_values),
    (LETTER, lambda path: list(read_letters(path, None))),
)


def test_a_file_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    """Such as one line of many gigabytes; event files pass over a line that is too long."""
    for _, read in READERS[1:]:
        with pytest.raises(Refused, match=r"more than [0-9,]+ (bytes|characters)"):
            read(Path("/dev/zero"))


@pytest.mark.parametrize("encoding", OTHERS)
def test_another_encoding_is_named_by_every_reader(save: Save, encoding: str) -> None:
    name = encoding[:6].upper()
    for text, read in READERS:
        with pytest.raises(Refused, match=f"not-utf8: .* is {name}; save it as UTF-8"):
            read(save(text, encoding))


def test_commands_take_a_mark_and_name_another_encoding_and_damage(database_url: str, tmp_path: Path) -> None:
    env = {"INCENTIVES_DATABASE_URL": database_url}
    good = tmp_path / "good"
    for command, text in (
        (("campaigns", "load"), sample_shop.CAMPAIGNS),
        (("grants", "load"), GRANT),
        (("backfill",), EVENTS),
        (("dlq", "import", "--because", "moved"), LETTER),
    ):
        good.write_text(text, encoding="utf-8-sig")
        ran = incentives(*command, good, "--format", "json", env=env)
        assert (ran.code, ran.err) == (0, "")
        assert not ran.document.get("rejected")
        bad = tmp_path / "bad"
        bad.write_text(text, encoding="utf-16")
        ran = incentives(*command, bad, env=env)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == f"Error: not-utf8: {bad} is UTF-16; save it as UTF-8\n"
        damaged = tmp_path / "damaged.gz"
        packed = bytearray(gzip.compress(text.encode() * 50))
        packed[40:60] = b"\xff" * 20
        damaged.write_bytes(packed)
        ran = incentives(*command, damaged, env=env)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("Error: ")
        assert "Traceback" not in ran.err
