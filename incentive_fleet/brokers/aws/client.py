"""botocore clients with bounded waits, the one policy for another try, and the one place where botocore's errors become ours.

Two kinds of another try: botocore makes a call that failed once more, and `tries` counts those of an entry that a batch call
named as failed by the service's own fault. Whatever is still wrong then is the caller's to pause for.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import botocore.parsers
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError

from incentive_fleet.addresses import without_logins
from incentive_fleet.certificates import certificate_fault
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

CONNECT_S: Final = 5
READ_S: Final = 30  # longer than the longest poll, 20 s
GLANCE_S: Final = 5  # for the answer to a call that nobody waits for
CALL_TRIES: Final = 2  # one quiet second try covers a dropped keep-alive connection
ENTRY_TRIES: Final = 4
PAUSE_S: Final = 0.2  # before the second try of an entry, doubled each time, less up to half by chance
MISSING_QUEUE: Final = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})

# Answered with 400 or 413 as well, and no message's fault: the service is asked too often, or an operator must act on a key.
SERVICE_CODES: Final = frozenset(
    [
        "RequestThrottled",
        "Throttling",
        "Throttled",
        "ThrottlingException",
        "OverLimit",
        "RequestExpired",
        "RequestAbortedException",
        "KmsThrottled",
        "KmsDisabled",
        "KmsAccessDenied",
        "KmsInvalidState",
        "KmsNotFound",
        "KmsOptInRequired",
        "KMSThrottling",
        "KMSDisabled",
        "KMSAccessDenied",
        "KMSInvalidState",
        "KMSNotFound",
        "KMSOptInRequired",
        "IncompleteSignature",
        "MalformedHttpRequestException",
    ]
)
# The destination or the login is wrong, whatever was sent there.
DESTINATION_CODES: Final = MISSING_QUEUE | frozenset(
    [
        "NotFound",
        "NotFoundException",
        "AuthorizationError",
        "AccessDenied",
        "AccessDeniedException",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "OptInRequired",
        "InvalidSecurity",
    ]
)

# AWS' words for these repeat the request that they cannot verify, the session token in its headers included.
SIGNATURE_CODES: Final = frozenset({"SignatureDoesNotMatch", "IncompleteSignature"})


class Blame(Enum):
    """Whose fault an error is: of what was sent, of destination or login, or of the service and the way there."""

    CONTENT = auto()
    DESTINATION = auto()
    SERVICE = auto()


class ContentRefused(Exception):
    """The service refused a whole call for what it holds. Which entry is meant shows when each stands alone."""


def sqs_client(settings: Settings, connections: int = 10) -> SQSClient:
    """A client for SQS; thread-safe. Raises SettingsError without a region, BrokerUnavailable without a usable endpoint."""
    client: SQSClient = _client("sqs", settings, connections)
    client.meta.events.register("after-call.sqs", _refuse_another_service)
    return client


def _refuse_another_service(http_response: AWSResponse, **_: object) -> None:
    """SQS answers in JSON, and botocore takes what is none for an answer that lacks everything."""
    if http_response.content and not http_response.content.startswith(b"{"):
        raise ResponseParserError("the answer is no JSON")


def sns_client(settings: Settings, connections: int = 2) -> SNSClient:
    """A client for SNS; thread-safe. Raises SettingsError without a region, BrokerUnavailable without a usable endpoint."""
    client: SNSClient = _client("sns", settings, connections)
    return client


def cloudwatch_client(settings: Settings) -> Any:
    """A client for CloudWatch, which gives up soon; thread-safe. Raises SettingsError without a region, BrokerUnavailable
    without a usable endpoint."""
    return _client("cloudwatch", settings, 1, GLANCE_S)


def _client(service: str, settings: Settings, connections: int, read_s: float = READ_S) -> Any:
    region = settings.need_aws_region()
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=read_s,
        retries={"total_max_attempts": CALL_TRIES, "mode": "standard"},
        max_pool_connections=connections,
    )
    with available():
        session = botocore.session.get_session()  # of the client's own: it is not safe to share between threads
        session.register_component("data_loader", _descriptions())
        session.set_config_variable("region", region)  # for whoever gives it credentials, too
        return session.create_client(
            service, endpoint_url=settings.aws_endpoint_url, verify=settings.aws_ca_bundle, config=config
        )


@cache
def _descriptions() -> Loader:
    """Of the services, as botocore brings them: to read them takes ten times as long as to make a client."""
    return create_loader()


def tries(pause_s: float = PAUSE_S) -> Iterator[bool]:
    """Once for each try of entries that the service fails, True for the last; pauses before each but the first."""
    for number in range(ENTRY_TRIES):
        if number:
            time.sleep(pause_s * 2 ** (number - 1) * random.uniform(0.5, 1))
        yield number == ENTRY_TRIES - 1


@contextmanager
def available(destination: str | None = None) -> Iterator[None]:
    """Turn what botocore raises into BrokerUnavailable: no connection, throttled, 5xx, expired token, no such queue.

    A refusal (missing queue, missing permission) is one of them: it ends when an operator acts, and pausing loses nothing.
    Whoever publishes names the `destination`; to him it is a SettingsError, and ContentRefused is what he sent. Only a call
    that botocore itself finds malformed is let through, for that is a bug of ours.
    """
    try:
        yield
    except ParamValidationError:
        raise
    except NoCredentialsError as error:
        if destination is None:
            raise BrokerUnavailable(f"SNS/SQS: {error}") from error
        raise SettingsError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another source, are not set.") from error
    except (BotoCoreError, ClientError) as error:
        # What repeats a secret is no cause that a traceback may show.
        raise _translated(error, destination) from (None if _repeats_request(error) else error)
    except Exception as error:
        if not _of_reading_an_answer(error):
            raise
        # Its words are the answer itself: a login page of a proxy, as long as it likes.
        raise BrokerUnavailable("SNS/SQS: what answers there is another service: its answer cannot be read") from None


def _of_reading_an_answer(error: Exception) -> bool:
    """Whether botocore could not read what came back. It has an error for some of it; the rest is whatever Python raised."""
    frames = [frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, ResponseParserError) or frames[-1] == botocore.parsers.__name__


def _translated(error: BotoCoreError | ClientError, destination: str | None) -> Exception:
    said = certificate_fault(error) or _words_of(error)
    match blame(error) if destination is not None else Blame.SERVICE:
        case Blame.CONTENT:
            return ContentRefused(said)
        case Blame.DESTINATION:
            return SettingsError(f"SNS does not let us publish to topic {destination!r}: {said}")
        case _:
            return BrokerUnavailable(f"SNS/SQS: {said}")


def _repeats_request(error: BotoCoreError | ClientError) -> bool:
    return isinstance(error, ClientError) and error_code(error) in SIGNATURE_CODES


def _words_of(error: BotoCoreError | ClientError) -> str:
    """What people may read of it."""
    if isinstance(error, ClientError) and _repeats_request(error):
        return (
            f"{error.operation_name} was refused ({error_code(error)}): the secret key does not belong to the access key, "
            "or this machine's clock is wrong"
        )
    return without_logins(str(error))


def blame(error: BotoCoreError | ClientError) -> Blame:
    """Whose fault it is, by the service's stable code and the status, never by words."""
    if not isinstance(error, ClientError):
        return Blame.SERVICE
    code = error_code(error)
    if code in DESTINATION_CODES:
        return Blame.DESTINATION
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return Blame.CONTENT if status in (400, 413) and code not in SERVICE_CODES else Blame.SERVICE


def error_code(error: ClientError) -> str:
    """The service's stable code of an error, such as AWS.SimpleQueueService.NonExistentQueue."""
    return str(error.response.get("Error", {}).get("Code", ""))
