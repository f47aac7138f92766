"""What the schema itself refuses, whatever program writes: as the owner, and as the application's role."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors as pg

from incentive_fleet.embedded.postgres import Postgres
from tests.parts import fresh_database
from tests.small_world import play

TRANSFER = (
    "INSERT INTO transfers (kind, debit_account, credit_account, currency, amount, customer_id, cause, happened_at)"
    " VALUES ('{kind}', '{debit}', '{credit}', 'EUR', {amount}, 'ann', 'grant:x', now())"
)
ORDERED = TRANSFER.replace("customer_id,", "customer_id, order_id,").replace("'ann',", "'{customer}', 'o',")


Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def played_url(postgres: Postgres, database_template: str) -> Iterator[str]:
    """The small world, played once: whatever a test does to it is rolled back."""
    with fresh_database(postgres, database_template) as url:
        play(url)
        yield url


@pytest.fixture
def owner(played_url: str) -> Iterator[Connection]:
    connection = psycopg.connect(played_url)
    yield connection
    connection.rollback()
    connection.close()


@pytest.fixture
def application(owner: Connection) -> Connection:
    owner.execute("SET ROLE incentives_app")
    return owner


CHANGES = [
    "UPDATE transfers SET amount = 1",
    "UPDATE transfers SET cause = cause",
    "UPDATE transfers SET amount = 1 WHERE false",
    "DELETE FROM transfers",
    "TRUNCATE transfers",
    "TRUNCATE transfers CASCADE",
    "UPDATE facts SET data = '{}'",
    "DELETE FROM facts",
    "TRUNCATE facts",
    "UPDATE decisions SET decision = '{}'",
    "DELETE FROM decisions",
    "TRUNCATE decisions",
    "UPDATE campaign_versions SET terms = '{}'",
    "DELETE FROM campaign_versions",
]


@pytest.mark.parametrize("statement", CHANGES)
def test_not_even_the_owner_changes_what_was_booked(owner: Connection, statement: str) -> None:
    with pytest.raises(pg.RestrictViolation, match="append-only"):
        owner.execute(statement.encode())


OF_THE_ROLE = [
    *CHANGES,
    "UPDATE balances SET balance = 0",
    "INSERT INTO balances VALUES ('breakage', 'EUR', 9, 5)",
    "DELETE FROM balances",
    "TRUNCATE balances",
    "UPDATE wallets SET balance = 0",
    "UPDATE wallets SET debt = 0",
    "INSERT INTO wallets (customer_id, currency, balance) VALUES ('new', 'EUR', 5)",
    "DELETE FROM wallets",
    "TRUNCATE wallets",
    "INSERT INTO redemption_counts VALUES ('k', 9, 5)",
    "UPDATE redemption_counts SET live = 0",
    "UPDATE redemptions SET discount = 1",
    "DELETE FROM redemptions",
    "UPDATE lots SET amount = 1",
    "UPDATE lots SET expires_at = NULL",
    "DELETE FROM lots",
    "UPDATE grants SET amount = 1",
    "DELETE FROM grants",
    "DELETE FROM orders",
    "UPDATE outbox SET body = ''",
    "DELETE FROM outbox",
    "DELETE FROM publications",
    "UPDATE publications SET outcomes = 1",
    "TRUNCATE publications",
    "INSERT INTO publications (destination, outcomes, outbox_ids, published_at) VALUES ('sns', 1, '{[1,1]}', now())",
    "DELETE FROM outbox_due",
    "INSERT INTO outbox_due VALUES ('{sns}', '{[1,1]}')",
    "UPDATE outbox_due SET destinations = '{}'",
    "DELETE FROM destinations",
    "ALTER TABLE outbox DISABLE TRIGGER mark",
    "DELETE FROM anomaly_resolutions",
    "UPDATE anomaly_resolutions SET resolution = ''",
    "DELETE FROM anomalies",
    "UPDATE anomalies SET reason = 'none'",
    "ALTER TABLE transfers DISABLE TRIGGER append_only",
    "ALTER TABLE transfers DISABLE TRIGGER ALL",
    "ALTER TABLE facts DISABLE TRIGGER append_only",
    "DROP TRIGGER append_only ON transfers",
    "DROP TRIGGER post_to_wallets ON transfers",
    "DROP TRIGGER post_to_balances ON transfers",
    "DROP TRIGGER keeps_its_owner ON wallets",
    "ALTER TABLE transfers DROP CONSTRAINT two_accounts",
    "ALTER TABLE transfers DROP CONSTRAINT kind_fixes_direction",
    "ALTER TABLE balances DROP CONSTRAINT never_negative",
    "ALTER TABLE wallets DROP CONSTRAINT no_credit_beside_a_debt",
    "ALTER TABLE facts DROP CONSTRAINT facts_pkey",
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
    "DROP FUNCTION refuse_change() CASCADE",
    "ALTER FUNCTION post_to_wallets() SECURITY INVOKER",
    "DROP TABLE transfers",
    "ALTER TABLE transfers RENAME TO old_transfers",
    "CREATE RULE nothing AS ON INSERT TO transfers DO INSTEAD NOTHING",
    "CREATE TRIGGER mine BEFORE INSERT ON transfers FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TABLE public.transfers2 ()",
]


@pytest.mark.parametrize("statement", OF_THE_ROLE)
def test_the_applications_role_lacks_the_privilege(application: Connection, statement: str) -> None:
    with pytest.raises(pg.InsufficientPrivilege):
        application.execute(statement.encode())


def test_the_role_is_no_superuser_and_cannot_switch_triggers_off(
    application: Connection,
) -> None:
    row = application.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication FROM pg_roles"
        " WHERE rolname = current_user"
    ).fetchone()
    assert row == (False,) * 5
    owned = application.execute("SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole").fetchone()
    assert owned == (0,)


def test_the_role_cannot_grant_itself_what_it_lacks(application: Connection) -> None:
    application.execute("GRANT ALL ON transfers TO incentives_app")  # Postgres warns, and grants nothing
    with pytest.raises(pg.InsufficientPrivilege):
        application.execute("DELETE FROM transfers WHERE false")


@pytest.mark.parametrize("amount", [0, -5])
def test_an_amount_is_positive(owner: Connection, amount: int) -> None:
    with pytest.raises(pg.CheckViolation):
        owner.execute(TRANSFER.format(kind="grant", debit="campaign:k", credit="wallet:ann", amount=amount).encode())


def test_a_transfer_has_two_accounts(owner: Connection) -> None:
    with pytest.raises(pg.CheckViolation, match=r"two_accounts|kind_fixes_direction"):
        owner.execute(TRANSFER.format(kind="grant", debit="wallet:ann", credit="wallet:ann", amount=1).encode())


RIGHT_WAYS = {
    "grant": ("campaign:x", "wallet:ann"),
    "grant_reversal": ("wallet:ann", "campaign:x"),
    "coupon": ("campaign:x", "order:o"),
    "credit": ("wallet:ann", "order:o"),
    "earn": ("campaign:x", "pending:ann"),
    "vest": ("pending:ann", "wallet:ann"),
    "coupon_reversal": ("order:o", "campaign:x"),
    "credit_return": ("order:o", "wallet:ann"),
    "earn_cancel": ("pending:ann", "campaign:x"),
    "clawback": ("wallet:ann", "campaign:x"),
    "clawback_debt": ("debt:ann", "campaign:x"),
    "debt_settlement": ("wallet:ann", "debt:ann"),
    "make_good": ("campaign:x", "wallet:ann"),
    "expiry": ("wallet:ann", "breakage"),
}
ACCOUNTS = ("wallet:ann", "pending:ann", "debt:ann", "campaign:x", "order:o", "breakage", "other:x")


def test_a_kind_runs_one_way_only(owner: Connection) -> None:
    """Every kind between every two accounts: exactly the pairs of rules 3.2 pass."""
    passed = set()
    for table in ("balances", "wallets"):
        owner.execute(f"ALTER TABLE {table} DROP CONSTRAINT never_negative".encode())
    owner.execute("ALTER TABLE wallets DROP CONSTRAINT no_credit_beside_a_debt")
    for kind in (*RIGHT_WAYS, "gift"):
        for debit in ACCOUNTS:
            for credit in ACCOUNTS:
                try:
                    with owner.transaction():
                        owner.execute(_ordered(kind, debit, credit))
                except pg.CheckViolation:
                    continue
                passed.add((kind, (debit, credit)))
    assert passed == set(RIGHT_WAYS.items())


@pytest.mark.parametrize("kind", RIGHT_WAYS)
def test_a_transfer_stays_with_its_customer_and_its_order(owner: Connection, kind: str) -> None:
    debit, credit = RIGHT_WAYS[kind]
    if {debit, credit} & {"wallet:ann", "pending:ann", "debt:ann"}:
        with pytest.raises(pg.CheckViolation, match="kind_fixes_direction"), owner.transaction():
            owner.execute(_ordered(kind, debit, credit, customer="eve"))
    if "order:o" in (debit, credit):
        other = _ordered(kind, debit.replace("order:o", "order:p"), credit.replace("order:o", "order:p"))
        with pytest.raises(pg.CheckViolation, match="kind_fixes_direction"), owner.transaction():
            owner.execute(other)
        with pytest.raises(pg.CheckViolation, match="kind_fixes_direction"):  # an order's account, but no order
            owner.execute(TRANSFER.format(kind=kind, debit=debit, credit=credit, amount=1).encode())


def _ordered(kind: str, debit: str, credit: str, amount: int = 1, customer: str = "ann") -> bytes:
    return ORDERED.format(kind=kind, debit=debit, credit=credit, amount=amount, customer=customer).encode()


@pytest.mark.parametrize(
    ("kind", "debit"), [("clawback", "wallet:ann"), ("earn_cancel", "pending:ann"), ("coupon_reversal", "order:o")]
)
def test_no_balance_below_zero(owner: Connection, kind: str, debit: str) -> None:
    with pytest.raises(pg.CheckViolation, match="never_negative"):
        owner.execute(_ordered(kind, debit, "campaign:x", amount=10**9))


def test_no_account_is_opened_below_zero(owner: Connection) -> None:
    with pytest.raises(pg.CheckViolation, match="never_negative"):
        owner.execute(_ordered("clawback", "wallet:nobody", "campaign:x", customer="nobody"))


def test_no_credit_beside_a_debt(owner: Connection) -> None:
    held = owner.execute("SELECT balance > 0 FROM wallets WHERE (customer_id, currency) = ('ann', 'EUR')").fetchone()
    assert held == (True,)
    with pytest.raises(pg.CheckViolation, match="no_credit_beside_a_debt"):
        owner.execute(_ordered("clawback_debt", "debt:ann", "campaign:x"))


@pytest.mark.parametrize("change", ["customer_id = 'eve'", "customer_id = customer_id"])
def test_a_wallet_keeps_its_owner(application: Connection, change: str) -> None:
    with pytest.raises(pg.RestrictViolation, match="keeps its customer"):
        application.execute(f"UPDATE wallets SET {change}".encode())


def test_a_balance_never_leaves_its_bounds(owner: Connection) -> None:
    grant = _ordered("grant", "campaign:x", "wallet:x", amount=2**63 - 1, customer="x")
    owner.execute(grant)
    with pytest.raises(pg.NumericValueOutOfRange):
        owner.execute(grant)


def test_one_fact_an_identity(owner: Connection) -> None:
    columns = "order_id, fact, source, event_id, digest, happened_at, data"
    insert = f"INSERT INTO facts ({columns}) SELECT {{}} FROM facts WHERE order_id = 'full' AND fact = 'placing'"
    for same_fact in ("order_id, fact, '/other', 'other'", "order_id, 'other', source, event_id"):
        with pytest.raises(pg.UniqueViolation), owner.transaction():
            owner.execute(insert.format(f"{same_fact}, digest, happened_at, data").encode())


@pytest.mark.parametrize("released", ["now()", "NULL"])
def test_a_redemption_is_released_once_and_for_good(application: Connection, released: str) -> None:
    with pytest.raises(pg.RestrictViolation, match="released already"):
        application.execute(f"UPDATE redemptions SET released_at = {released} WHERE released_at IS NOT NULL".encode())


@pytest.mark.parametrize("remaining", ["-1", "amount + 1"])
def test_a_lot_holds_what_it_can(application: Connection, remaining: str) -> None:
    with pytest.raises(pg.CheckViolation, match="holds_what_it_can"):
        application.execute(f"UPDATE lots SET remaining = {remaining}".encode())
