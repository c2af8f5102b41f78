"""What can be known to keep a model out of Bedrock before an import is asked for, which takes long to fail."""

from __future__ import annotations

from cloudtune.clients.aws import AwsClient
from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.pauses import Say
from cloudtune.plan import Call
from cloudtune.registries.source import Source
from cloudtune.rights.trust import trusts
from cloudtune.uri import shown
from cloudtune.weights.checks.examine import check

PRINCIPAL = "bedrock.amazonaws.com"
#: Regions that have Custom Model Import, as of November 2026; the same page that ``check`` reads.
REGIONS = ("eu-central-1", "us-east-1", "us-east-2", "us-west-2")
#: Architectures that are taken in some of them only.
_ONLY = {"GptOssForCausalLM": ("us-east-1",)}
_MOST = 5


def check_model(source: Source) -> str | None:
    """Return a model's architecture; raises UsageError with everything that Bedrock would not take."""
    report = check(f"{source.uri.rstrip('/')}/", target="bedrock", fast=True)
    errors = report.of("error")
    if errors:
        lines = [f"  {one.where}: {one.message} ({one.hint})".replace("  :", " ") for one in errors[:_MOST]]
        more = f"\n  and {len(errors) - _MOST} more" if len(errors) > _MOST else ""
        message = f"Bedrock will not take {shown(source.named)}; nothing was sent:\n" + "\n".join(lines) + more
        raise UsageError(message, hint=f"cloudtune check {shown(source.named)} --for bedrock shows all of it")
    return report.architecture


def check_region(region: str, architecture: str | None) -> None:
    """Raise UsageError for a region in which the model cannot be imported."""
    where = _ONLY.get(architecture or "", REGIONS)
    if region not in where:
        what = f"models of {architecture}" if architecture in _ONLY else "models"
        hint = f"name one of {', '.join(where)}: region: in the infrastructure, with the model in a bucket there"
        raise UsageError(f"Bedrock imports no {what} in {region}", hint=hint)


def check_role(client: AwsClient, role: str, say: Say) -> None:
    """Raise UsageError for a role that Bedrock may not take on; one that cannot be read is left to the service."""
    name = role.rpartition("/")[2]
    call = Call(service="aws.iam", operation="get_role", parameters={"RoleName": name, "absent": True})
    try:
        found = client.read(call).get("Role")
    except CloudtuneError as error:
        if getattr(error, "passing", False):
            raise
        found = None
    if found is None:
        say(f"role {name} cannot be looked at: whether Bedrock may take it on, it will say itself")
    elif not trusts(found.get("AssumeRolePolicyDocument") or {}, PRINCIPAL):
        hint = f"let its trust policy allow sts:AssumeRole to the service {PRINCIPAL}, or name another role"
        raise UsageError(f"role {name} does not let Bedrock take it on", hint=hint)
