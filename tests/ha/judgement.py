"""What must hold after the last fault: nothing lost, nothing twice, and the ledger sound by its own verification."""

from __future__ import annotations

import signal
from typing import Any

import pika

from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_queues
from tests.brokers_and_workers import environment_of
from tests.command import incentives
from tests.ha.faults import Found
from tests.ha.site import OUTCOMES, Site
from tests.shop import balances

DONE_S = 120.0  # from the end of the load until all of it is in the ledger and every outcome is published


def facts(site: Site) -> int:
    return int(site.ask("SELECT count(*) FROM facts"))


def come_to_rest(site: Site) -> None:
    """Stop the load, wait until everything that was confirmed is in the ledger, and drain the fleet."""
    site.load.stop()
    site.load.check()
    wanted = len(site.load.bodies)
    site.until(
        lambda: facts(site) >= wanted, lambda: f"{facts(site)} of {wanted} published facts in the ledger", DONE_S
    )
    site.until(lambda: site.ask("SELECT count(*) FROM outbox_unpublished") == 0, "outcomes left unpublished", DONE_S)
    codes = [fleet.end(signal.SIGTERM) for fleet in site.serving()]
    assert codes == [0, 0, 0], f"the fleet drained with {codes}"


def judge(site: Site, calm: dict[str, int]) -> list[str]:
    """A sentence for each thing that is not as it must be."""
    wrong: list[str] = []
    stored, published = facts(site), len(site.load.bodies)
    if stored != published:
        wrong.append(f"{published} facts were published and {stored} are in the ledger")
    if (ended := balances(site.url)) != calm:
        differing = {key for key in ended.keys() | calm.keys() if ended.get(key) != calm.get(key)}
        wrong.append(f"{len(differing)} balances differ from an undisturbed run's, as of {sorted(differing)[:5]}")
    verified = incentives("ledger", "verify", env=environment_of(site.direct))
    if verified.code:
        wrong.append(f"ledger verify ends with {verified.code}: {verified.out}{verified.err}")
    return wrong + _brokers_wrong(site)


def _brokers_wrong(site: Site) -> list[str]:
    groups = rabbitmq_queues(site.direct)
    names = [n for group in groups for n in (group.source, group.dead_letters, *(n for _, n in group.retries))]
    url = site.cluster.url_of("one")
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        counts = {name: channel.queue_declare(name, passive=True).method.message_count for name in names}
        heard = _ids(channel)
    wrong = [f"{name} still holds {count}" for name, count in counts.items() if count]
    outcomes = int(site.ask("SELECT count(*) FROM outbox"))
    return wrong if len(heard) == outcomes else [*wrong, f"{len(heard)} of {outcomes} outcomes were published"]


def _ids(channel: Any) -> set[str]:
    """The ids of all outcomes that were published; one that was published again counts once."""
    heard: set[str] = set()
    channel.basic_qos(prefetch_count=1_000)
    for method, properties, _ in channel.consume(OUTCOMES, inactivity_timeout=2, auto_ack=True):
        if method is None:
            break
        heard.add(str(properties.message_id))
    channel.cancel()
    return heard


def table(found: list[Found], site: Site) -> str:
    """Markdown, as docs/recovery.md has it."""
    rows = [
        f"| {one.fault.kind} | {one.fault.lasts_s:g} s | {one.held_up:.1f} s | {one.no_writes:.1f} s |"
        f" {'' if one.back_after is None else f'{one.back_after:.1f} s'} | {one.unconfirmed:.1f} s |"
        for one in found
    ]
    columns = ("fault", "mended after", "fleet: no commit for", "Postgres: no write for", "fleet back after that")
    head = f"| {' | '.join(columns)} | publisher: no confirm for |"
    return "\n".join([f"{len(site.load.bodies):,} events", head, "| --- | ---: | ---: | ---: | ---: | ---: |", *rows])
