"""Fuzzes the codec with coverage as the guide: `python -m tests.chaos.guided SECONDS`, behind `make fuzz`.

atheris changes bytes to reach branches that no earlier bytes reached, starting from valid events and from the refused ones.
Whatever escapes `decode` but Malformed, and whatever it reads that its own encoding does not give back, ends the run.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["incentive_fleet"]):
    from incentive_fleet.errors import Malformed
    from incentive_fleet.events.codec import Event, decode, encode_event
    from incentive_fleet.events.reasons import Reason

from incentive_fleet.embedded import sample_shop
from tests.chaos.poison import MAKERS

BODY_MOST = 4_096  # bytes that the fuzzer may come up with


def decoded(body: bytes) -> Event | Malformed:
    try:
        return decode(body)
    except Malformed as refusal:
        return refusal


def check(body: bytes) -> None:
    event = decoded(body)
    if isinstance(event, Malformed):
        assert event.reason in set(Reason)
        assert event.detail.isprintable()
        return
    assert decode(encode_event(event.source, event.id, event.data, event.time, event.traceparent)) == event


def main() -> None:
    seconds = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as corpus:
        bodies = [body for _, body in sample_shop.events(sample_shop.Shop(20, refunds=1.0, lines=(1, 3)))]
        bodies += [make(number) for number, (_, _, make) in enumerate(MAKERS)]
        for number, body in enumerate(bodies):
            (Path(corpus) / str(number)).write_bytes(body)
        options = [f"-max_total_time={seconds}", f"-max_len={BODY_MOST}", "-timeout=10", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, corpus], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
