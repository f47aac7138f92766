"""The tables of accounts and kinds of transfer are what the schema, the journal and the outcomes' schema say too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from incentive_fleet.events.outcome_parts import AnomalyCode, CouponRefusal, CreditRefusal
from incentive_fleet.incentives import anomalies
from incentive_fleet.incentives.accounts import ACCOUNTS, WAYS, AccountClass, Kind
from incentive_fleet.incentives.refusals import MEANINGS, RefusalCode
from incentive_fleet.ledger import migrations
from incentive_fleet.ledger.export import ACCOUNT_TYPES

SCHEMA = (Path(migrations.__file__).parent / "versions" / "0001_ledger.sql").read_text(encoding="utf-8")


def condition(account: AccountClass, side: str) -> str:
    """How the schema asks for an account of a class on a side of a transfer."""
    match ACCOUNTS[account].owner:
        case "campaign":
            return f"starts_with({side}_account, 'campaign:')"
        case "":
            return f"{side}_account = '{account}'"
        case owner:
            return f"{side}_account = '{account}:' || {owner}_id"


def test_the_schema_lets_each_kind_run_its_way_and_no_other() -> None:
    rules = dict(
        re.findall(r"WHEN '(\w+)' +THEN (.+)", SCHEMA[SCHEMA.index("kind_fixes_direction") :].split("ELSE false")[0])
    )
    assert list(rules) == list(Kind) == list(WAYS)
    for kind, way in WAYS.items():
        assert rules[kind] == f"{condition(way.debit, 'debit')} AND {condition(way.credit, 'credit')}", kind


def test_the_schema_keeps_balances_from_below_zero_but_for_campaigns() -> None:
    assert [account for account, rule in ACCOUNTS.items() if rule.may_be_negative] == [AccountClass.CAMPAIGN]
    assert "CHECK (balance >= 0 OR starts_with(account, 'campaign:'))" in SCHEMA
    assert "CHECK (balance >= 0 AND pending >= 0 AND debt >= 0)" in SCHEMA


def test_the_schema_reports_each_class_on_its_normal_side() -> None:
    view = SCHEMA[SCHEMA.index("CREATE VIEW accounts") :].split(";")[0]
    by_wallet = dict(re.findall(r"SELECT '(\w+):' \|\| customer_id, currency, '(\w+)'", view))
    assert by_wallet == {str(a): rule.normal_side for a, rule in ACCOUNTS.items() if rule.owner == "customer"}
    others = {account for account, rule in ACCOUNTS.items() if rule.owner != "customer"}
    assert {account for account in others if ACCOUNTS[account].normal_side == "debit"} == {AccountClass.CAMPAIGN}


def test_the_journal_declares_every_class_with_its_meaning() -> None:
    debits = {"A", "X"}  # assets and expenses grow by debits, liabilities and revenues by credits
    assert ACCOUNT_TYPES.keys() == set(AccountClass)
    for account, rule in ACCOUNTS.items():
        assert (ACCOUNT_TYPES[account] in debits) == (rule.normal_side == "debit"), account


def test_every_code_of_a_refusal_means_something_and_is_in_the_outcomes_schema() -> None:
    assert list(MEANINGS) == list(RefusalCode) == [*get_args(CouponRefusal), *get_args(CreditRefusal)]


def test_every_reason_of_an_anomaly_means_something_and_is_in_the_outcomes_schema() -> None:
    assert list(anomalies.MEANINGS) == list(anomalies.AnomalyReason) == list(get_args(AnomalyCode))
