"""Databases as administrators hand them over: options in the URL, a search_path, an encoding. They work or are refused in
a sentence."""

from __future__ import annotations

from contextlib import closing
from urllib.parse import quote

import pytest

from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.snapshot import snapshot


def asking(url: str, options: str) -> str:
    return f"{url}&options={quote(options)}"


def shown(url: str, *names: str) -> list[str]:
    with closing(connect(url)) as connection:
        return [str(connection.execute(f"SHOW {name}".encode()).fetchone()[0]) for name in names]  # type: ignore[index]


def test_options_of_the_url_are_kept_and_win(database_url: str) -> None:
    url = asking(database_url, "-c lock_timeout=7s --statement-timeout=90s -c enable_seqscan=on")
    assert shown(url, "lock_timeout", "statement_timeout", "enable_seqscan") == ["7s", "90s", "on"]
    assert shown(database_url, "lock_timeout", "statement_timeout") == ["0", "1min"]
    with closing(Session(url)) as session:
        planner = session.connection.execute("SELECT current_setting('enable_seqscan'), current_setting('jit')")
        assert planner.fetchone() == ("on", "off")


def test_options_do_not_move_what_the_code_stands_on(database_url: str) -> None:
    url = asking(
        database_url, "-c timezone=Europe/Sofia -c datestyle=German -c default_transaction_isolation=serializable"
    )
    named = ("timezone", "datestyle", "transaction_isolation", "client_encoding", "role")
    found = ["UTC", "ISO, MDY", "read committed", "UTF8", "incentives_app"]
    assert shown(f"{url}&client_encoding=latin1", *named) == found


def test_an_option_that_the_server_does_not_know_is_told(database_url: str) -> None:
    with pytest.raises(Exception, match="no_such_setting"):
        connect(asking(database_url, "-c no_such_setting=1"))


def test_a_snapshot_is_one_moment_and_the_next_transaction_is_not(database_url: str) -> None:
    with closing(connect(database_url)) as connection:
        said = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"
        with snapshot(connection):
            assert connection.execute(said).fetchone() == ("repeatable read", "on")
        with connection.transaction():
            assert connection.execute(said).fetchone() == ("read committed", "off")
