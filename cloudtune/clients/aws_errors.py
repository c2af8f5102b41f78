"""What AWS refuses, and cuts off, as errors of cloudtune: sorted by who can mend it."""

from __future__ import annotations

import re
from typing import Any

import attrs

from cloudtune import rights
from cloudtune.clients.aws_auth import Account
from cloudtune.clients.aws_auth import sdk_errors as sdk
from cloudtune.clients.failing import failed
from cloudtune.errors import CloudtuneError, NoCapacity, NotAllowed, RunNotFound, UsageError
from cloudtune.plan import Call

#: Where the rights that a call needs are granted; an administrator applies it.
POLICY = "infrastructure/sagemaker"
#: By service, where it is another.
POLICIES = {"aws.eks": "infrastructure/eks"}
_FORBIDDEN = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "Forbidden"}
_UNKNOWN_USER = {
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_FULL = {
    "CapacityError",
    "InsufficientCapacityException",
    "InsufficientInstanceCapacity",
    "LimitExceededException",
    "ResourceLimitExceeded",
    "ServiceQuotaExceededException",
}
_BUSY = {"RequestLimitExceeded", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException"}
#: Ways to sign in whose credentials the user renews; those that the SDK renews by itself fail for other reasons.
_RENEWED_BY_HAND = ("env", "sso", "shared-credentials-file", "config-file", "login", "custom-process")
_MISSING = re.compile(r"requested resource not found|could not find|does not exist|not found", re.IGNORECASE)
_ACTION = re.compile(r"not authorized to perform:? ([a-z0-9-]+:\w+)")
#: Prefixes of rights that are not called as the service is.
_PREFIXES = {"bedrock-runtime": "bedrock", "sagemaker-runtime": "sagemaker", "service-quotas": "servicequotas"}
#: Rights that are not called as the operation is.
_ACTIONS = {"s3:HeadObject": "s3:GetObject", "s3:ListObjectsV2": "s3:ListBucket", "s3:HeadBucket": "s3:ListBucket"}
#: Runs by what asks for them.
_RUNS = {
    "describe_training_job",
    "stop_training_job",
    "delete_training_job",
    "update_training_job",
}


def is_expired(error: Exception) -> bool:
    """Whether the service says that the credentials are no longer good: read anew, they may be."""
    return isinstance(error, sdk.ClientError) and code_of(error) in _EXPIRED


def is_missing(error: Exception) -> bool:
    """Whether the service says that there is no such thing."""
    if not isinstance(error, sdk.ClientError):
        return False
    code = code_of(error)
    named = "NotFound" in code or code.startswith("NoSuch") or code == "404"
    return named or (code == "ValidationException" and _MISSING.search(_said(error)) is not None)


def code_of(error: Any) -> str:
    """Return the service's own word for an error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def told(error: Exception, call: Call, account: Account) -> CloudtuneError:
    """Return the error to raise for one of the SDK's."""
    if isinstance(error, CloudtuneError):
        return error
    if isinstance(error, sdk.ClientError):
        return _refused(error, call, account)
    where = f"{call.service}.{call.operation}"
    if isinstance(error, (sdk.ParamValidationError, sdk.InvalidRegionError)):
        asked = "the body that was given" if call.service.endswith("_runtime") else "overrides: in the spec"
        return UsageError(f"{where}: {_words(error)}", hint=f"look at {asked}")
    if isinstance(error, sdk.NoRegionError):
        return UsageError(f"{where}: no AWS region is known", hint="region: in the spec, or AWS_DEFAULT_REGION")
    if isinstance(error, _SIGN_IN):
        refused = NotAllowed(f"{where}: no credentials for AWS: {_words(error)}", hint=sign_in(account, error))
        refused.passing = isinstance(error, _RENEWABLE)
        return refused
    if isinstance(error, (sdk.EndpointConnectionError, sdk.ConnectTimeoutError, sdk.ProxyConnectionError)):
        unreached = failed(f"cannot be reached: {_words(error)}", call, definite=True)
        unreached.hint, unreached.passing = "check the network, and the region's name", True
        return unreached
    # the request may have been carried out: only its reply is known to be lost
    words = _words(error)[:500] or type(error).__name__
    lost = isinstance(error, (sdk.ConnectionError, sdk.HTTPClientError))
    return failed(
        f"the connection failed: {words}" if lost else words,
        call,
        definite=False,
        hint="run it again" if lost else None,
    )


_RENEWABLE = (
    sdk.CredentialRetrievalError,
    sdk.MetadataRetrievalError,
    sdk.TokenRetrievalError,
    sdk.SSOError,
    *((sdk.LoginError,) if hasattr(sdk, "LoginError") else ()),  # `aws login` came with botocore 1.41
)
_SIGN_IN = (
    *_RENEWABLE,
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.ProfileNotFound,
    sdk.NoAuthTokenError,
    sdk.ConfigParseError,
    sdk.InvalidConfigError,
    sdk.UnknownCredentialError,
)


def sign_in(account: Account, error: Exception | None = None) -> str:
    """Return what the user can run to be known to AWS again."""
    profile = account.profile
    named = f" --profile {profile}" if profile else ""
    if isinstance(error, sdk.ProfileNotFound):
        return "aws configure list-profiles shows those there are; name one: export AWS_PROFILE=..."
    if isinstance(error, (sdk.SSOError, sdk.TokenRetrievalError)):
        return f"aws sso login{named}"
    hints = {
        "sso": f"aws sso login{named}",
        "login": f"aws login{named}",
        "env": "export a fresh AWS_ACCESS_KEY_ID, secret key and session token, or unset them to use a profile",
        "assume-role": "sign in as the user who may assume the role, or name another profile: AWS_PROFILE",
        "iam-role": "this machine's role gives no credentials any more: ask your administrator",
        "container-role": "this container's role gives no credentials any more: ask your administrator",
    }
    kind = "" if isinstance(error, sdk.NoCredentialsError) else account.kind
    return hints.get(kind, f"aws configure{named}, aws sso login{named}, or name another profile: AWS_PROFILE")


def _refused(error: Any, call: Call, account: Account) -> CloudtuneError:
    facts = error.response.get("ResponseMetadata", {})
    status, code, said = int(facts.get("HTTPStatusCode") or 0), code_of(error), _said(error)
    where = f"{call.service}.{call.operation}"
    tail = f" (request {facts['RequestId']})" if facts.get("RequestId") else ""
    if code in _EXPIRED or code in _UNKNOWN_USER:
        what = "your credentials have expired" if code in _EXPIRED else "AWS does not know you"
        refused = NotAllowed(f"{where}: {what}: {said or code}{tail}", hint=f"sign in: {sign_in(account)}")
        refused.passing = code in _EXPIRED and account.kind in _RENEWED_BY_HAND
        return refused
    if call.operation in _RUNS and is_missing(error):
        name = call.parameters.get("TrainingJobName")
        hint = "check its name, its region, and your profile"
        return RunNotFound(f"SageMaker has no training job {name}, or you may not see it", hint=hint)
    if code in _FORBIDDEN or status == 403:
        action = missing_action(said, error.operation_name, call.service)
        message = f"{where}: you lack {action}: {said or code}{tail}"
        return NotAllowed(message, policy=POLICIES.get(call.service, POLICY), hint=granting(action))
    if code in _FULL:
        hint = "ask for a higher quota (Service Quotas), take another instance type or region, or try again later"
        return NoCapacity(f"{where}: {said or code}{tail}", hint=hint)
    busy = code in _BUSY or status == 429 or status >= 500
    return failed(
        f"{code}: {said}" if said else code,
        call,
        definite=not busy,
        request_id=facts.get("RequestId"),
        hint="wait a little and run it again" if busy else None,
    )


def missing_action(said: str, operation: str, service: str) -> str:
    """Return the right that a refusal is for: the one that it names, else the one that is called as the operation."""
    found = _ACTION.search(said)
    if found is not None:
        return found[1]
    name = service.removeprefix("aws.").replace("_", "-")
    action = f"{_PREFIXES.get(name, name)}:{operation}"
    return _ACTIONS.get(action, action)


def granting(action: str) -> str:
    """Return who grants an action, and by which statement where it is one that cloudtune knows to need."""
    every = (*rights.rights("aws").values(), *rights.rights("kubernetes").values())
    right = next((right for right in every if right.who == "users" and action in right.actions), None)
    alone: Any = {"actions": (action,)}
    statement = f": {attrs.evolve(right, **alone).statement()}" if right is not None else ""
    policy = POLICIES.get(f"aws.{action.partition(':')[0]}", POLICY)
    return f"your administrator grants {action} with the policies of {policy}{statement}"


def _said(error: Any) -> str:
    return _words(error.response.get("Error", {}).get("Message"))


def _words(value: object) -> str:
    return " ".join(str(value or "").split())
