"""Operators with names: what each role may, in whose name a login acts, and acts that two have to answer for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import errors, sql

from incentive_fleet.cli.commands import status
from incentive_fleet.cli.root import cli
from incentive_fleet.dead_letters import runs
from incentive_fleet.ledger.people import ROLES
from tests.dead_letter_world import LetterDatabase, arrival, by, order

VIEWER, SUPPORT, OPERATOR, APPROVER = ROLES


@dataclass(frozen=True)
class People:
    """Logins of a test's own, one a role, in a database with three letters."""

    database: LetterDatabase
    logins: dict[str, str]  # by role

    def url(self, role: str) -> str:
        return self.database.url.replace("postgres@", f"{self.logins[role]}@")

    def type(self, role: str, *arguments: str, **more: str) -> Result:
        environment = {"INCENTIVES_DATABASE_URL": self.url(role), **more}
        return CliRunner().invoke(cli, ["dlq", *arguments], env=environment)

    def told(self, role: str, *arguments: str) -> Any:
        ran = self.type(role, *arguments, "--format", "json")
        assert ran.exit_code == 0, (ran.output, ran.exception)
        return json.loads(ran.stdout)


@pytest.fixture
def people(database_url: str) -> Iterator[People]:
    database = LetterDatabase.loaded(database_url)
    database.keep(*(arrival(order(n, currency="XXX"), name=f"m-{n}") for n in range(3)), at=datetime.now(UTC))
    logins = {role: f"{role.removeprefix('incentives_')}-{uuid.uuid4().hex[:8]}" for role in ROLES}
    with psycopg.connect(database_url, autocommit=True) as owner:
        for role, login in logins.items():
            names = sql.Identifier(login), sql.Identifier(role)
            owner.execute(sql.SQL("CREATE ROLE {} LOGIN").format(names[0]))
            owner.execute(sql.SQL("GRANT {1} TO {0}").format(*names))
        try:
            yield People(database, logins)
        finally:
            for login in logins.values():
                owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(login)))


EDIT = ("edit", "--all", "--set", "data.currency=EUR", "--yes")
DISCARD = ("discard", "1", "--because", "x")
PURGE = ("purge", "--closed", "--older-than", "90d", "--yes")
MAY = [
    (("groups",), ROLES),
    (("list",), ROLES),
    (("runs",), ROLES),
    (("history",), ROLES),
    (("show", "1"), (SUPPORT, OPERATOR, APPROVER)),
    (("list", "--text", "o-1"), (SUPPORT, OPERATOR, APPROVER)),
    ((*EDIT, "--dry-run"), (SUPPORT, OPERATOR, APPROVER)),
    (EDIT, (OPERATOR,)),
    (DISCARD, (OPERATOR,)),
    (("replay", "1", "--detach"), (OPERATOR,)),
]


def test_each_role_may_what_it_is_for(people: People) -> None:
    for command, those in MAY:
        for role in (VIEWER, SUPPORT, APPROVER, OPERATOR):
            ran = people.type(role, *command)
            assert (ran.exit_code == 0) == (role in those), (role, command, ran.output, ran.exception)
            if role not in those:
                assert "permission denied" in str(ran.exception)


def test_whoever_is_called_at_night_sees_how_everything_stands(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a login of their own: the first command of many runbooks told all of them that the database was away."""
    monkeypatch.setattr(status, "RATE_OVER_S", 0.0)
    failure = {"attempts": 5, "error_class": "shop.OddError", "message": "of ann", "traceback": "", "host": "h"}
    times = {"first_at": "2026-03-01T00:00:00Z", "last_at": "2026-03-01T00:10:00Z"}
    headers = {"fleet-reason": "unexpected-error", "fleet-detail": "x", "fleet-failure": json.dumps(failure | times)}
    people.database.keep(arrival(order(9), name="odd", headers=headers))
    no_broker = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION", "INCENTIVES_RABBITMQ_URL"), "")
    for role in ROLES:
        environment = {"INCENTIVES_DATABASE_URL": people.url(role), "INCENTIVES_ACTOR": role} | no_broker
        first, second = (CliRunner().invoke(cli, ["status"], env=environment).output for _ in range(2))
        assert "unreachable" not in first, role
        assert "dead letters  4 open\n" in first
        assert "unexpected-error OddError" in first
        assert "4 open, 0 new since" in second
    refused(
        people.url(VIEWER),
        ["SELECT failure FROM dead_letters", "SELECT subject FROM anomalies", "SELECT body FROM outbox"],
    )


def refused(url: str, statements: Sequence[str]) -> None:
    """The database lets this login do none of these."""
    with psycopg.connect(url, autocommit=True) as login:
        for statement in statements:
            with pytest.raises(errors.InsufficientPrivilege):
                login.execute(statement.encode())


def test_a_viewer_sees_nothing_that_came_with_a_message(people: People) -> None:
    columns = ("body", "edited_body", "headers", "envelope", "failure")
    selects = [f"SELECT {column} FROM dead_letters" for column in columns]
    refused(people.url(VIEWER), [*selects, "SELECT after FROM dead_letter_run_letters", "SELECT data FROM facts"])
    refused(people.url(VIEWER), ["UPDATE dead_letters SET status = 'discarded'"])


def test_no_person_writes_in_the_ledger_or_the_trail(people: People) -> None:
    for role in ROLES:
        refused(
            people.url(role),
            [
                "INSERT INTO orders (order_id) VALUES ('x')",
                "UPDATE lots SET remaining = 0",
                "DELETE FROM dead_letter_audit",
                "SET ROLE incentives_app",
                "TRUNCATE dead_letters",
            ],
        )


def test_a_person_acts_in_their_own_name_and_a_service_in_that_which_it_names(people: People) -> None:
    dana = people.logins[OPERATOR]
    people.told(OPERATOR, "edit", "1", "--set", "data.currency=EUR")
    people.told(OPERATOR, "discard", "2", "--because", "noise", "--actor", dana)
    forged = people.type(OPERATOR, "discard", "3", "--because", "noise", "--actor", "somebody")
    assert (forged.exit_code, str(forged.exception).split(":")[0]) == (1, "actor-not-yours")
    hidden = people.type(OPERATOR, "discard", "3", "--because", "noise", INCENTIVES_ACTOR="somebody")
    assert hidden.exit_code == 1
    assert {act.actor for act in people.database.acts() if act.act != "collected"} == {dana}
    service = CliRunner().invoke(
        *(cli, ["dlq", "discard", "3", "--because", "x", "--actor", "console-user"]),
        env={"INCENTIVES_DATABASE_URL": people.database.url},
    )
    assert service.exit_code == 0
    assert people.database.acts(3)[-1].actor == "console-user"


def test_the_database_itself_refuses_what_an_operator_may_not_claim(people: People) -> None:
    people.told(OPERATOR, "edit", "1", "--set", "data.currency=EUR")
    refused(
        people.url(OPERATOR),
        [
            "INSERT INTO dead_letter_audit (dead_letter_id, act, actor, acted_at, before, after) "
            "VALUES (1, 'edited', 'somebody', now(), '{}', '{}')",
            "INSERT INTO dead_letter_runs (act, status, actor, began_at, parameters, transports, letters) "
            "VALUES ('edit', 'ready', 'somebody', now(), '{}', '{}', 0)",
            "UPDATE dead_letter_runs SET approved_by = session_user",
        ],
    )
    refused(people.url(APPROVER), ["UPDATE dead_letter_runs SET approved_by = 'somebody'"])


def test_what_writes_in_the_ledger_takes_a_service(people: People) -> None:
    for command in (("replay", "1", "--dry-run"), ("show", "1", "--effect"), ("conflict", "1")):
        ran = people.type(OPERATOR, *command)
        assert (ran.exit_code, str(ran.exception).split(":")[0]) == (1, "takes-a-service")


def test_a_run_that_needs_an_approval_waits_for_another_one(people: People) -> None:
    (run,) = people.told(OPERATOR, *EDIT, "--needs-approval", "--because", "INC-3")["runs"]
    number = str(run["run"])
    assert (run["status"], run["pending"], run["actor"]) == ("waiting", 3, people.logins[OPERATOR])
    early = people.type(OPERATOR, "resume", number)
    assert (early.exit_code, str(early.exception).split(":")[0]) == (1, "needs-approval")
    own = people.type(OPERATOR, "approve", number)
    assert (own.exit_code, str(own.exception).split(":")[0]) == (1, "own-run")
    with psycopg.connect(people.url(OPERATOR)) as login, pytest.raises(errors.InsufficientPrivilege):
        login.execute("UPDATE dead_letter_runs SET status = 'ready'")
    assert not any(letter.edited for letter in people.database.summaries())
    (approved,) = people.told(APPROVER, "approve", number)["runs"]
    assert (approved["status"], approved["approved_by"]) == ("ready", people.logins[APPROVER])
    assert people.told(OPERATOR, "resume", number)["edited"] == 3
    again = people.told(APPROVER, "approve", number)["runs"]
    assert again[0]["status"] == "done"


def test_a_run_that_was_stopped_before_its_approval_still_waits_for_it(people: People) -> None:
    (run,) = people.told(OPERATOR, *EDIT, "--needs-approval")["runs"]
    number = str(run["run"])
    people.told(OPERATOR, "stop", number)
    assert people.type(OPERATOR, "resume", number).exit_code == 1
    people.told(APPROVER, "approve", number)
    assert people.told(OPERATOR, "resume", number)["edited"] == 3


def test_who_approved_stopped_and_resumed_a_run_and_why_stands_in_the_trail(people: People) -> None:
    """It bears on all letters of the run and is told of none: an approval would be in the trail of ten thousand."""
    (run,) = people.told(OPERATOR, *EDIT, "--needs-approval")["runs"]
    number = str(run["run"])
    for role, act, reason in ((OPERATOR, "stop", "wait"), (OPERATOR, "stop", "again"), (APPROVER, "approve", "fine")):
        people.told(role, act, number, "--because", reason)
        people.type(OPERATOR, "resume", number, "--because", "on")  # which waits for its approval, and then does not
    told = people.told(VIEWER, "history", "--run", number)["acts"]
    of_run = [act for act in told if act["dead_letter_id"] is None]
    operator, approver = people.logins[OPERATOR], people.logins[APPROVER]
    assert [(act["act"], act["actor"], act["reason"]) for act in of_run] == [
        ("stopped", operator, "wait"),
        ("stopped", operator, "again"),
        ("approved", approver, "fine"),
        ("resumed", operator, "on"),
    ]
    assert [act["after"]["status"] for act in of_run] == ["stopped", "stopped", "ready", "ready"]
    assert [act["act"] for act in told if act["dead_letter_id"] is not None] == ["edited"] * 3
    assert people.told(VIEWER, "history", "--actor", approver)["acts"] == [of_run[2]]
    assert f"run: {number}  act: approved  actor: {approver}" in people.type(VIEWER, "history").stdout
    refused(
        people.url(APPROVER),
        [
            "INSERT INTO dead_letter_audit (run_id, act, actor, acted_at, before, after) "
            f"VALUES ({number}, 'approved', 'somebody', now(), '{{}}', '{{}}')"
        ],
    )


def test_what_waits_for_no_approval_gets_none(people: People) -> None:
    people.told(OPERATOR, *EDIT)
    ran = people.type(APPROVER, "approve", "1")
    assert (ran.exit_code, str(ran.exception).split(":")[0]) == (1, "not-waiting")


@pytest.mark.parametrize(("letters", "status"), [("2", "waiting"), ("3", "done")])
def test_the_settings_ask_for_an_approval_over_so_many_letters(people: People, letters: str, status: str) -> None:
    people.type(OPERATOR, *EDIT, INCENTIVES_APPROVAL_LETTERS=letters)
    with people.database.connect() as connection:
        assert runs.get_run(connection, 1).status == status


@pytest.mark.parametrize(("minor", "status"), [("569", "waiting"), ("570", "ready")])
def test_the_settings_ask_for_an_approval_over_so_much_money(people: People, minor: str, status: str) -> None:
    """Three orders of 100 for the coupon and 90 earned: 570 cents."""
    people.told(OPERATOR, *EDIT)
    ran = CliRunner().invoke(
        *(cli, ["dlq", "replay", "--all", "--yes", "--detach"]),
        env={"INCENTIVES_DATABASE_URL": people.database.url, "INCENTIVES_APPROVAL_MINOR": minor},
    )
    assert ran.exit_code == 0, ran.output
    with people.database.connect() as connection:
        assert runs.get_run(connection, 2).status == status


def test_a_person_goes_on_with_their_own_runs_alone(people: People) -> None:
    with people.database.connect() as connection:
        number = runs.begin(connection, "discard", [1], by("ann", "x"))
        runs.stop_run(connection, number, "not now")
    ran = people.type(OPERATOR, "resume", str(number))
    assert ran.exit_code == 1
    assert "is ann's" in ran.stderr
    with people.database.connect() as connection:
        assert runs.get_run(connection, number).status == "stopped", "else the fleet would go on with it"
    refused(people.url(OPERATOR), [f"UPDATE dead_letter_runs SET status = 'ready' WHERE run_id = {number}"])


def test_an_approver_purges_and_the_trail_names_them(people: People) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=100)
    people.database.keep(arrival(order(9, currency="XXX"), name="old"), at=long_ago)
    people.database.discard(4)
    assert people.type(OPERATOR, *PURGE).exit_code == 1
    assert people.told(APPROVER, *PURGE, "--because", "retention")["purged"] == 1
    assert [(act.act, act.actor) for act in people.database.acts(4)][-1] == ("purged", people.logins[APPROVER])
