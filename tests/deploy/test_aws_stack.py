"""The stacks of messaging and alarms deployed by CloudFormation into LocalStack, and used: events go in by the created
topic, the real fleet takes them from the created queues, and what is there is what `incentives topology apply` makes.

LocalStack checks no permission; so what each role's process calls is read from LocalStack's log and compared with its IAM role.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from incentive_fleet.brokers import declare, topology
from incentive_fleet.brokers.aws.plan import sqs_queues
from incentive_fleet.dead_letters.carrying import EVERY_S
from incentive_fleet.embedded import sample_shop
from incentive_fleet.settings import Settings
from tests.aws_clients import aws_client
from tests.command import incentives
from tests.contract.brokers_under_test import eventually
from tests.deploy.test_aws import FOLDER, REGION, of_type
from tests.parts import LocalStack
from tests.shop import open_shop

pytestmark = pytest.mark.deploy
NEEDED = "cloudformation,cloudwatch,events,iam,s3,sns,sqs,ssm,sts"
# LocalStack 4.12 cannot make a key (its CreateKey fails) and encrypts nothing, so the stack is given one.
KEY = f"arn:aws:kms:{REGION}:000000000000:key/11111111-2222-3333-4444-555555555555"
SHOP = sample_shop.Shop(4, seed=5)
# What differs between two things of the same kind whatever they are.
OWN = {"CreatedTimestamp", "LastModifiedTimestamp", "QueueArn", "TopicArn", "SubscriptionArn", "Owner", "Endpoint"}
BATCHES = {  # the call, and the permission that it needs
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "sns:PublishBatch": "sns:Publish",
}
CALL = re.compile(r"AWS (\w+)\.(\w+) => ")


class Account(LocalStack):
    """A LocalStack of its own, for it serves more than the suite's."""

    def _environment(self, port: int) -> dict[str, str]:
        return super()._environment(port) | {"SERVICES": NEEDED}

    def calls(self) -> list[str]:
        """Every call so far, as service:Operation."""
        return [":".join(found) for found in CALL.findall((self.folder / "log").read_text(errors="replace"))]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    runtime = Account(tmp_path_factory.mktemp("account"))
    try:
        runtime.start()
        yield runtime
    finally:
        runtime.stop()


@pytest.fixture(scope="module")
def client(account: Account) -> Iterator[Callable[[str], Any]]:
    made: dict[str, Any] = {}

    def get(service: str) -> Any:
        if service not in made:
            made[service] = aws_client(service, account.endpoint_url)
        return made[service]

    yield get
    for one in made.values():
        one.close()


def deploy(client: Callable[[str], Any], stack: str, **parameters: str) -> dict[str, str]:
    """Create a stack, wait for it, and return its outputs."""
    cloud, name = client("cloudformation"), f"{parameters['Prefix']}-{stack}"
    cloud.create_stack(
        StackName=name,
        TemplateBody=(FOLDER / f"{stack}.yaml").read_text(encoding="utf-8"),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    described: dict[str, Any] = {}

    def done() -> bool:
        described.update(cloud.describe_stacks(StackName=name)["Stacks"][0])
        return bool(described["StackStatus"] != "CREATE_IN_PROGRESS")

    eventually(done, 90)
    events = cloud.describe_stack_events(StackName=name)["StackEvents"]
    failed = [
        (one["LogicalResourceId"], one.get("ResourceStatusReason"))
        for one in events
        if "FAILED" in one["ResourceStatus"]
    ]
    assert described["StackStatus"] == "CREATE_COMPLETE", failed
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


@pytest.fixture(scope="module")
def stack(client: Callable[[str], Any]) -> dict[str, str]:
    return deploy(client, "messaging", Prefix="made", KmsKeyArn=KEY)


def settings_of(account: Account, prefix: str, key: str, **more: Any) -> Settings:
    return Settings(
        prefix=prefix,
        aws_region=REGION,
        aws_endpoint_url=account.endpoint_url,
        kms_key_id=key.rpartition("/")[2],
        **more,
    )


def everything(client: Callable[[str], Any], prefix: str, topic_key: str = "TopicArn") -> dict[str, dict[str, Any]]:
    """Each attribute of each topic, queue and subscription of a prefix, with the prefix taken out of all values."""
    sqs, sns = client("sqs"), client("sns")
    found: dict[str, dict[str, Any]] = {}
    for url in sqs.list_queues(QueueNamePrefix=f"{prefix}-")["QueueUrls"]:
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        found[url.rpartition("/")[2]] = attributes
    for topic in sns.list_topics()["Topics"]:
        name = topic["TopicArn"].rpartition(":")[2]
        if not name.startswith(f"{prefix}-"):
            continue
        found[name] = sns.get_topic_attributes(TopicArn=topic["TopicArn"])["Attributes"]
        for one in sns.list_subscriptions_by_topic(TopicArn=topic["TopicArn"])["Subscriptions"]:
            attributes = sns.get_subscription_attributes(SubscriptionArn=one["SubscriptionArn"])["Attributes"]
            found[f"{name} -> {one['Endpoint'].rpartition(':')[2]}"] = attributes
    return {
        name.replace(prefix, "PREFIX"): {
            key: _plain(value.replace(prefix, "PREFIX")) for key, value in attributes.items() if key not in OWN
        }
        for name, attributes in found.items()
    }


def _plain(text: str) -> Any:
    """Documents as documents, with the statements of a policy by their Sid."""
    try:
        document = json.loads(text, parse_int=str)
    except ValueError:
        return text.lower() if text.lower() in {"true", "false"} else text
    if isinstance(document, dict) and "Statement" in document:
        return {statement["Sid"]: statement for statement in document["Statement"]}
    return document


def test_what_the_stack_makes_is_what_topology_apply_makes(
    account: Account, client: Callable[[str], Any], stack: dict[str, str]
) -> None:
    assert declare.check(settings_of(account, "made", stack["KmsKeyArn"])).drift == ()
    declare.apply(settings_of(account, "applied", stack["KmsKeyArn"]))
    made, applied = everything(client, "made"), everything(client, "applied")
    assert made.keys() == applied.keys()
    assert len(made) == 2 + 3 * len(topology.QUEUES)  # topics; queues, dead-letter queues, subscriptions
    for name in made:
        if name in {"PREFIX-events", "PREFIX-outcomes"}:
            # The one difference: SNS gives a new topic a statement that lets its own account in, and so does the stack.
            mine, given = (
                made[name]["Policy"].pop("ThisAccountAlone"),
                applied[name]["Policy"].pop("__default_statement_ID"),
            )
            assert mine["Principal"] == {"AWS": "arn:aws:iam::000000000000:root"}
            assert set(given["Condition"]["StringEquals"].values()) == {"000000000000"}
        for attribute in made[name].keys() | applied[name].keys():
            is_, should_be = made[name].get(attribute), applied[name].get(attribute)
            assert _bare(attribute, is_) == _bare(attribute, should_be), (name, attribute)


def _bare(attribute: str, value: Any) -> Any:
    return value.rpartition("/")[2] if attribute == "KmsMasterKeyId" and value else value


def test_events_go_through_the_stack_and_each_role_calls_what_its_permissions_say(
    account: Account, client: Callable[[str], Any], stack: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    settings = settings_of(account, "made", stack["KmsKeyArn"], database_url=database_url)
    environment = {
        **account.environment,
        "INCENTIVES_PREFIX": "made",
        "INCENTIVES_DATABASE_URL": database_url,
        "INCENTIVES_WAIT_S": "1",
    }
    open_shop(database_url, SHOP)
    bodies = [body for _, body in sample_shop.events(SHOP)]
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(body + b"\n" for body in [*bodies, b'{"type": "unheard-of.v1"}']))

    def calls_of(*words: str) -> tuple[dict[str, Any], set[str]]:
        before = len(account.calls())
        ran = incentives(*words, "--format", "json", env=environment)
        assert ran.code == 0, ran.err
        return ran.document, {BATCHES.get(call, call) for call in account.calls()[before:]}

    assert calls_of("publish", str(file), "--to", "sns", "--raw")[0]["published"] == len(bodies) + 1
    consumed, consume = calls_of("consume", "--from", "sqs", "--until-idle", "3", "--no-collect")
    counts = consumed["counts"]
    assert counts.pop("dead-letter:not-a-cloud-event") == 1
    assert sum(counts.values()) == len(bodies)
    assert counts.keys() <= {"applied", "waiting"}  # SQS keeps no order: a refund may come before its order
    relayed, relay = calls_of("relay", "--until-idle", "1")
    assert relayed["published"]["sns"] > 0
    collected, collect = calls_of("dlq", "collect", "--from", "sqs", "--until-idle", "2")
    assert collected["collected"]["new"] == 1
    calls_of("dlq", "replay", "--all", "--yes", "--detach")
    collect |= calls_of("dlq", "collect", "--from", "sqs", "--until-idle", str(EVERY_S + 3))[1]  # which sends it
    assert sqs_queues(settings)
    for role, called in (("Consume", consume), ("Relay", relay), ("Collect", collect)):
        allowed = actions(role)
        assert called <= allowed, (role, called - allowed)
        # What only an error, a slow batch or a scrape calls.
        seldom = {
            "sqs:ChangeMessageVisibility",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
            "cloudwatch:GetMetricData",
        }
        assert allowed - called <= seldom, (role, allowed - called)


def actions(role: str) -> set[str]:
    """What a role may do on SNS and SQS."""
    [policy] = of_type("services", "AWS::IAM::Role")[f"{role}Role"]["Policies"]
    found = {
        action
        for statement in policy["PolicyDocument"]["Statement"]
        for action in statement["Action"]
        if action.startswith(("sqs:", "sns:"))
    }
    assert found
    return found


def test_the_alarms_are_made_and_one_that_goes_off_reaches_the_topic(
    client: Callable[[str], Any], stack: dict[str, str]
) -> None:
    outputs = deploy(client, "alarms", Prefix="made", KmsKeyArn=stack["KmsKeyArn"], DatabaseInstance="made-ledger")
    described = client("cloudwatch").describe_alarms(AlarmNamePrefix="made-")["MetricAlarms"]
    wanted = of_type("alarms", "AWS::CloudWatch::Alarm")
    assert {alarm["AlarmName"] for alarm in described} == {
        alarm["AlarmName"]["Fn::Sub"].replace("${Prefix}", "made") for alarm in wanted.values()
    }
    assert all(alarm["AlarmActions"] == [outputs["AlarmTopicArn"]] for alarm in described)
    sqs, sns = client("sqs"), client("sns")
    url = sqs.create_queue(QueueName="pager")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=outputs["AlarmTopicArn"], Protocol="sqs", Endpoint=arn)
    for state in ("OK", "ALARM"):  # it may be ringing already, for no task runs; only a change is told
        client("cloudwatch").set_alarm_state(
            AlarmName="made-relay-down", StateValue=state, StateReason="tried by a test"
        )
    told: list[tuple[str, str]] = []

    def rang() -> bool:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5).get("Messages", []):
            alarm = json.loads(json.loads(message["Body"])["Message"])
            told.append((alarm["AlarmName"], alarm["NewStateValue"]))
        return ("made-relay-down", "ALARM") in told

    eventually(rang, 30)  # the others come by and say that they are well
