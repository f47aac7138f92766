"""The CloudFormation templates: judged, compared with the code's own topology, and a part of them deployed and used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import pytest
import yaml

from benchmarks.scaling import DRAIN_S, IN_COOLDOWN_S, MAX_TASKS, MIN_TASKS, OUT_COOLDOWN_S, RESULTS
from incentive_fleet import names
from incentive_fleet.brokers import topology
from incentive_fleet.brokers.aws import policies
from incentive_fleet.brokers.aws.plan import aws_plan, sqs_queues
from incentive_fleet.settings import Settings, variable
from tests.deploy.judges import DEPLOY, Template, judge, refusal

FOLDER = DEPLOY / "aws"
STACKS = ("messaging", "database", "services", "alarms", "console")
ACCOUNT, REGION = "000000000000", "eu-central-1"


def template(stack: str) -> Any:
    return yaml.load((FOLDER / f"{stack}.yaml").read_text(encoding="utf-8"), Template)


def of_type(stack: str, type_: str) -> dict[str, Any]:
    """The properties of the resources of a type, by logical id."""
    resources = template(stack)["Resources"].items()
    return {name: resource.get("Properties", {}) for name, resource in resources if resource["Type"] == type_}


def resolved(value: Any, resources: Mapping[str, str], parameters: Mapping[str, str]) -> Any:
    """A value with references replaced: of resources by ARN, of parameters by value."""
    known = {**parameters, "AWS::Partition": "aws", "AWS::AccountId": ACCOUNT, "AWS::Region": REGION}
    match value:
        case {"Ref": name}:
            return known.get(name) or resources[name]
        case {"Fn::GetAtt": [name, "Arn"]}:
            return resources[name]
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([^}]+)\}", lambda found: known[found[1]], text)
        case dict():
            return {key: resolved(item, resources, parameters) for key, item in value.items()}
        case list():
            return [resolved(item, resources, parameters) for item in value]
    return value


def test_cfn_lint_finds_nothing() -> None:
    judge("cfn-lint", "--include-checks", "I", "--", *(f"deploy/aws/{stack}.yaml" for stack in STACKS))


def test_queues_topics_and_filters_are_those_of_the_code() -> None:
    """Each attribute of each thing, from the module that `topology apply` carries out."""
    settings = Settings(prefix="shop", aws_region=REGION, sqs_visibility_s=77)
    plan = aws_plan(settings)
    parameters = {"Prefix": "shop", "VisibilityTimeoutS": "77"}
    arns = {
        name: f"arn:aws:sqs:{REGION}:{ACCOUNT}:{resolved(queue['QueueName'], {}, parameters)}"
        for name, queue in of_type("messaging", "AWS::SQS::Queue").items()
    } | {
        name: f"arn:aws:sns:{REGION}:{ACCOUNT}:{resolved(topic['TopicName'], {}, parameters)}"
        for name, topic in of_type("messaging", "AWS::SNS::Topic").items()
    }
    by_arn = {arn: name for name, arn in arns.items()}
    assert set(by_arn) == {
        f"arn:aws:{'sns' if name in plan.topics else 'sqs'}:{REGION}:{ACCOUNT}:{name}"
        for name in [*plan.topics, *(n for one in plan.subscriptions for n in (one.queue, one.dead_letters))]
    }

    def read(type_: str) -> list[Any]:
        return [resolved(item, arns, parameters) for item in without_keys(of_type("messaging", type_)).values()]

    queues = {queue.pop("QueueName"): queue for queue in read("AWS::SQS::Queue")}
    statements = {
        arn: policy["PolicyDocument"]["Statement"]
        for type_, member in (("AWS::SQS::QueuePolicy", "Queues"), ("AWS::SNS::TopicPolicy", "Topics"))
        for policy in read(type_)
        for arn in policy[member]
    }
    subscriptions = {one["Endpoint"]: one for one in read("AWS::SNS::Subscription")}
    events = f"arn:aws:sns:{REGION}:{ACCOUNT}:{plan.events_topic}"
    for one in plan.subscriptions:
        source, dead = (f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}" for name in (one.queue, one.dead_letters))
        redrive = queues[one.queue].pop("RedrivePolicy")
        assert redrive == {"deadLetterTargetArn": dead, "maxReceiveCount": topology.BACKSTOP_DELIVERIES}
        assert as_text(queues[one.queue]) == dict(plan.source_attributes)
        assert as_text(queues[one.dead_letters]) == dict(plan.dead_letter_attributes)
        no_plain = [policies.refuse_plain_transport(arn, "sqs:*") for arn in (source, dead)]
        assert statements[source] == [policies.topic_may_send(source, events), no_plain[0]]
        assert statements[dead] == [no_plain[1]]
        assert subscriptions[source] == {
            "TopicArn": events,
            "Protocol": "sqs",
            "Endpoint": source,
            "RawMessageDelivery": True,
            "FilterPolicy": one.filter_policy,
        }
    assert len(subscriptions) == len(plan.subscriptions)
    for topic in plan.topics:
        arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:{topic}"
        ours, no_plain_topic = statements[arn]
        assert no_plain_topic == policies.refuse_plain_transport(arn, "sns:Publish")
        assert ours["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}  # this account's, and nobody else


def without_keys(resources: dict[str, Any]) -> dict[str, Any]:
    """Without encryption, which is checked for everything below: a choice between two keys is no attribute's value."""
    return {
        name: {key: value for key, value in item.items() if key != "KmsMasterKeyId"} for name, item in resources.items()
    }


def as_text(attributes: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in attributes.items()}


def test_everything_that_holds_messages_is_encrypted_with_a_key_that_one_can_withdraw() -> None:
    held = of_type("messaging", "AWS::SQS::Queue") | of_type("messaging", "AWS::SNS::Topic")
    assert len(held) == 2 + 2 * len(topology.QUEUES)  # topics, queues, dead-letter queues
    key = {"Fn::If": ["MakesKey", {"Ref": "Key"}, {"Ref": "KmsKeyArn"}]}
    assert all(item["KmsMasterKeyId"] == key for item in held.values())


def default(stack: str, parameter: str) -> Any:
    return template(stack)["Parameters"][parameter]["Default"]


def test_the_targets_of_scaling_are_those_that_the_simulation_picks() -> None:
    picked = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))["chosen"]
    assert picked["arrivals"]
    assert default("services", "BacklogPerTask") == picked["target"]
    assert default("services", "StepAgeS") == picked["age_s"]
    assert (default("services", "TasksLeast"), default("services", "TasksMost")) == (MIN_TASKS, MAX_TASKS)
    assert default("services", "DrainS") == DRAIN_S
    scaling = of_type("services", "AWS::ApplicationAutoScaling::ScalingPolicy")
    tracking = scaling["ScalesOnBacklog"]["TargetTrackingScalingPolicyConfiguration"]
    assert (tracking["ScaleOutCooldown"], tracking["ScaleInCooldown"]) == (OUT_COOLDOWN_S, IN_COOLDOWN_S)
    near, far = scaling["ScalesOnAge"]["StepScalingPolicyConfiguration"]["StepAdjustments"]
    assert (near["ScalingAdjustment"], far["ScalingAdjustment"]) == (picked["step"], 2 * picked["step"])
    assert far["MetricIntervalLowerBound"] == near["MetricIntervalUpperBound"] == 3 * picked["age_s"]


def test_scaling_looks_at_every_queue_of_facts() -> None:
    queues = {f"${{Prefix}}-{word}" for _, word in topology.SOURCES}
    text = json.dumps(template("services")["Resources"]["ScalesOnBacklog"])
    alarm = json.dumps(template("services")["Resources"]["OldestMessage"])
    for found, times in ((text, 2), (alarm, 1)):
        assert {queue: found.count(f'"{queue}"') for queue in queues} == dict.fromkeys(queues, times)


# Who holds an event, a question or a letter against its queue, and who tells figures.
USED_BY: Final = {
    "AllowedSources": {"ConsumeTask", "QuotesTask", "CollectTask"},
    "OtlpEndpoint": {"ConsumeTask", "QuotesTask", "RelayTask", "CollectTask"},
}


def test_every_task_has_a_role_of_its_own_and_drains_before_it_is_killed() -> None:
    tasks = of_type("services", "AWS::ECS::TaskDefinition")
    roles = {name: task["TaskRoleArn"]["Fn::GetAtt"][0] for name, task in tasks.items()}
    assert roles.pop("LoginTask") == "MigrateRole"  # both make the database ready, and neither calls AWS
    assert len(set(roles.values())) == len(roles) == 7
    for name, task in tasks.items():
        [container] = task["ContainerDefinitions"]
        assert container["ReadonlyRootFilesystem"] is True, name
        assert container["User"] == "10001:10001", name
        assert container["StopTimeout"] > template("services")["Parameters"]["DrainS"]["MaxValue"], name
        secrets = {secret["Name"] for secret in container["Secrets"]}
        owners = "INCENTIVES_ADMIN_DATABASE_URL" in secrets
        assert owners == (name in {"MigrateTask", "LoginTask"}), name
        assert task["ExecutionRoleArn"]["Fn::GetAtt"][0] == ("StartsMigrations" if owners else "StartsTasks"), name
        if "EntryPoint" not in container:
            assert not refusal(*container["Command"]), name
        told = {one["Name"]: str(one["Value"]) for one in container["Environment"]}
        assert {*told, *secrets} <= {variable(field) for field in Settings.model_fields}, name
        for parameter, setting in (("AllowedSources", "ALLOWED_SOURCES"), ("OtlpEndpoint", "OTLP_ENDPOINT")):
            given = told.get(f"INCENTIVES_{setting}")
            assert given in {None, str({"Ref": parameter})}, name
            assert (given is not None) == (name in USED_BY[parameter]), name


def test_every_service_and_nothing_else_is_asked_for_its_health() -> None:
    """A task without HealthCheck is healthy to ECS as long as it runs, whatever the image says."""
    tasks = of_type("services", "AWS::ECS::TaskDefinition")
    services = {service["TaskDefinition"]["Ref"] for service in of_type("services", "AWS::ECS::Service").values()}
    asked = {name for name, task in tasks.items() if "HealthCheck" in task["ContainerDefinitions"][0]}
    assert asked == services == {"ConsumeTask", "QuotesTask", "RelayTask", "CollectTask"}
    for name in asked:
        [container] = tasks[name]["ContainerDefinitions"]
        assert container["HealthCheck"]["Command"] == [
            "CMD",
            "/opt/incentives/bin/python",
            "/opt/incentives/health.py",
        ], name
        assert {"Name": "INCENTIVES_HEALTH_PORT", "Value": "8080"} in container["Environment"], name


def test_the_console_drains_and_is_asked_where_it_listens_and_may_send_nothing() -> None:
    [task] = of_type("console", "AWS::ECS::TaskDefinition").values()
    [container] = task["ContainerDefinitions"]
    assert not refusal(*container["Command"])
    assert container["StopTimeout"] > template("console")["Parameters"]["DrainS"]["MaxValue"]
    assert (container["ReadonlyRootFilesystem"], container["User"]) == (True, "10001:10001")
    told = {one["Name"]: one["Value"] for one in container["Environment"]}
    secrets = {one["Name"] for one in container["Secrets"]}
    assert secrets == {"INCENTIVES_DATABASE_URL", "INCENTIVES_OIDC_CLIENT_SECRET", "INCENTIVES_SESSION_KEY"}
    values = {
        name.removeprefix("INCENTIVES_").lower(): value for name, value in told.items() if isinstance(value, str)
    } | {"public_url": "https://x.example", "oidc_issuer": "https://login.example", "oidc_client_id": "x"}
    named = {name.removeprefix("INCENTIVES_").lower() for name in {*told, *secrets} if name.startswith("INCENTIVES_")}
    assert named <= Settings.model_fields.keys()
    settings = Settings.model_validate({name: value for name, value in values.items() if name in Settings.model_fields})
    [targets] = of_type("console", "AWS::ElasticLoadBalancingV2::TargetGroup").values()
    assert (settings.serve_port, settings.health_port) == (targets["Port"], int(targets["HealthCheckPort"]))
    [listener] = of_type("console", "AWS::ElasticLoadBalancingV2::Listener").values()
    assert (listener["Port"], listener["Protocol"]) == (443, "HTTPS")
    [statement, _] = of_type("console", "AWS::IAM::Role")["ConsoleRole"]["Policies"][0]["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["sqs:GetQueueUrl", "sqs:GetQueueAttributes"]


def test_the_schedule_expires_as_of_its_own_time() -> None:
    expire = of_type("services", "AWS::Scheduler::Schedule")["ExpireSchedule"]
    [override] = json.loads(expire["Target"]["Input"])["containerOverrides"]
    assert override["command"][:3] == ["expire", "--as-of", "<aws.scheduler.scheduled-time>"]
    assert not refusal(*override["command"])


def test_alarms_watch_every_queue_and_every_service() -> None:
    alarms = of_type("alarms", "AWS::CloudWatch::Alarm")
    watched = {
        (alarm["MetricName"], dimension["Value"]["Fn::Sub"])
        for alarm in alarms.values()
        for dimension in alarm["Dimensions"]
        if isinstance(dimension["Value"], dict) and "Fn::Sub" in dimension["Value"]
    }
    for group in sqs_queues(Settings(prefix="x")):
        source, dead = ("${Prefix}" + name.removeprefix("x") for name in (group.source, group.dead_letters))
        lying, coming = "ApproximateNumberOfMessagesVisible", "NumberOfMessagesSent"
        assert {("ApproximateAgeOfOldestMessage", source), (lying, dead), (coming, dead)} <= watched
    services = of_type("services", "AWS::ECS::Service").values()
    assert {("RunningTaskCount", service["ServiceName"]["Fn::Sub"]) for service in services} <= watched
    assert ("NumberOfNotificationsFailed", "${Prefix}" + names.events_topic("")) in watched
    assert all(alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}] for alarm in alarms.values())


SHOWN = {"Prefix": "x", "DatabaseInstance": "db", "AWS::Region": REGION}


def widgets(*, database: bool) -> list[dict[str, Any]]:
    """The dashboard as CloudWatch gets it."""
    [dashboard] = of_type("alarms", "AWS::CloudWatch::Dashboard").values()
    text, variables = dashboard["DashboardBody"]["Fn::Sub"]
    condition, there, absent = variables["Database"]["Fn::If"]
    assert condition == "HasDatabase"
    more = filled(there["Fn::Sub"], SHOWN) if database else absent
    found: list[dict[str, Any]] = json.loads(filled(text, SHOWN | {"Database": more}))["widgets"]
    return found


def filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{([^}]+)\}", lambda found: values[found[1]], text)


def test_the_dashboard_shows_each_queue_and_all_that_an_alarm_watches() -> None:
    shown = {tuple(metric) for widget in widgets(database=True) for metric in widget["properties"]["metrics"]}
    for group in sqs_queues(Settings(prefix="x")):
        for queue, names_of in (
            (
                group.source,
                ("ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible", "NumberOfMessagesSent"),
            ),
            (group.dead_letters, ("ApproximateNumberOfMessagesVisible",)),
        ):
            assert {("AWS/SQS", name, "QueueName", queue) for name in names_of} <= shown
    queues = {name for group in sqs_queues(Settings(prefix="x")) for name in (group.source, group.dead_letters)}
    assert {metric[3] for metric in shown if metric[0] == "AWS/SQS"} == queues
    seldom = {
        "FailedInvocations",
        "MaximumUsedTransactionIDs",
    }  # of the rules behind alarms, and of a slow end: alarms alone
    for name, alarm in of_type("alarms", "AWS::CloudWatch::Alarm").items():
        told = resolved(alarm["Dimensions"], {"JobFailed": "", "RefusedTasks": ""}, SHOWN)
        metric = (
            alarm["Namespace"],
            alarm["MetricName"],
            *(part for one in told for part in (one["Name"], one["Value"])),
        )
        assert alarm["MetricName"] in seldom or metric in shown, name


@pytest.mark.parametrize("database", [True, False])
def test_widgets_fill_the_screen_and_lie_on_nothing(database: bool) -> None:
    taken: set[tuple[int, int]] = set()
    for widget in widgets(database=database):
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not taken & cells
        taken |= cells
        assert widget["properties"]["region"] == REGION
    assert len(taken) == 24 * (30 if database else 24)


def test_no_rule_of_a_network_guesses_where_somebody_s_network_is() -> None:
    """A rule names a group, an address that is a parameter, AWS by TLS, or nothing."""
    rules = [
        rule
        for stack in STACKS
        for group in of_type(stack, "AWS::EC2::SecurityGroup").values()
        for direction in ("SecurityGroupIngress", "SecurityGroupEgress")
        for rule in group.get(direction, ())
    ]
    rules += [
        rule
        for stack in STACKS
        for direction in ("Ingress", "Egress")
        for rule in of_type(stack, f"AWS::EC2::SecurityGroup{direction}").values()
    ]
    assert len(rules) > 10
    for rule in rules:
        match rule.get("CidrIp"):
            case None:
                assert {"SourceSecurityGroupId", "DestinationSecurityGroupId"} & rule.keys(), rule
            case str() as network:
                assert (network, rule.get("ToPort")) in {("0.0.0.0/0", 443), ("127.0.0.1/32", None)}, rule
            case parameter:
                assert parameter == {"Ref": "PeopleCidr"}, rule


@pytest.mark.deploy
def test_checkov_finds_nothing_that_has_no_reason() -> None:
    told = json.loads(judge("checkov", "--directory", "deploy/aws", "--framework", "cloudformation", "-o", "json"))
    assert told["summary"]["failed"] == told["summary"]["parsing_errors"] == 0, told["results"]["failed_checks"]
    judged = {check["file_path"] for check in told["results"]["passed_checks"]}
    assert judged == {f"/{stack}.yaml" for stack in STACKS}
    for skipped in told["results"]["skipped_checks"]:
        reason = skipped["check_result"]["suppress_comment"]
        assert len(reason.split()) > 8, (skipped["check_id"], reason)
