"""What travels to a cluster beside the job: the agent, its order and the code in a ConfigMap, and a Secret.

A ConfigMap holds 1 MiB. Code that does not fit goes to ``stagingUri`` as an archive, from where the node fetches it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cloudtune.backends.eks_pods import GIT_SECRET
from cloudtune.backends.eks_wire import CONFIG_MAP_BYTES
from cloudtune.launch import Launch
from cloudtune.node.pack import agent_bytes
from cloudtune.order import order_of
from cloudtune.plan import Call, File, Step
from cloudtune.spec.job import JobSpec
from cloudtune.workspace import Workspace, pack

STORAGE = "aws.s3"
ARCHIVE = "code.tar.gz"
#: Code of so many bytes is not even tried: packed it would have to shrink to a hundredth.
_HOPELESS = 100 * CONFIG_MAP_BYTES
#: What a file takes in an archive beside its content, packed, at most.
_HEADER = 600


@attrs.frozen(kw_only=True)
class Luggage:
    """What travels: the files of the ConfigMap, and the code that is uploaded where it does not fit into that.

    ``staged`` is the URI of the uploaded archive; ``unfit`` says what fits nowhere: ``code`` or ``order``.
    """

    files: tuple[File, ...]
    uploaded: tuple[File, ...] = ()
    staged: str | None = None
    unfit: str | None = None


def luggage(
    job: JobSpec,
    how: Launch,
    run_id: str,
    *,
    name: str,
    object_name: str,
    outputs: Mapping[str, Any],
    workspace: Workspace | None,
) -> Luggage:
    """Return what travels to the pods of a job, whose objects are called ``object_name``."""
    agent = _made("agent.pyz", agent_bytes())
    code = _code(workspace) if workspace is not None else ()
    source = {"kind": "archive", "path": ARCHIVE} if code else None
    order, _ = order_of(job, how, run_id, name=name, code=source, outputs=outputs)
    order["secrets"] = {key: _reference(key, secret, object_name) for key, secret in order["secrets"].items()}
    if order["code"] and order["code"].get("secret"):
        order["code"] = {**order["code"], "secret": _git_reference(order["code"]["secret"])}
    text = _text(order)
    room = CONFIG_MAP_BYTES - agent.bytes - text.bytes
    if room < 0:
        return Luggage(files=(agent,), unfit="order")
    if fits_in(code, room):
        return Luggage(files=(agent, text, *code))
    staged = staging_uri(job, object_name)
    if staged is None:
        return Luggage(files=(agent, text), unfit="code")
    text = _text({**order, "code": {"kind": "uri", "uri": staged}})
    return Luggage(files=(agent, text), uploaded=code, staged=staged)


def staging_uri(job: JobSpec, name: str) -> str | None:
    """Return where code is uploaded that does not fit; None where nothing says it, or nothing here can write there."""
    base = job.infrastructure.staging_uri
    return f"{base.rstrip('/')}/{name}/{ARCHIVE}" if base and base.startswith("s3://") else None


def fits_in(code: tuple[File, ...], room: int) -> bool:
    """Whether files packed into one archive take no more than so many bytes."""
    raw = sum(file.bytes for file in code)
    if raw + _HEADER * len(code) <= room:
        return True
    if raw > _HOPELESS:
        return False
    if len(code) == 1 and code[0].path == ARCHIVE:
        return raw <= room
    packed = io.BytesIO()
    pack([attrs.evolve(file, path=file.path.removeprefix("code/")) for file in code], packed)
    return len(packed.getbuffer()) <= room


def upload(left: Luggage, run_id: str, region: str | None) -> Iterator[Step]:
    """Yield the step that uploads code to S3, where there is any."""
    if not left.staged:
        return
    bucket, _, key = left.staged.removeprefix("s3://").partition("/")
    at = {"Bucket": bucket, "Key": key}
    yield Step(
        id="code",
        service=STORAGE,
        operation="put_object",
        parameters=at,
        files=left.uploaded,
        token=f"cloudtune-{run_id}-code",
        undo=Call(service=STORAGE, operation="delete_object", parameters=at, region=region),
        region=region,
    )


def _reference(variable: str, secret: str, object_name: str) -> str:
    """Return a reference to a secret as the node has it: what was read where the job was submitted came by a Secret."""
    return f"k8s:{object_name}/{variable}" if secret.startswith("env:") else secret


def _git_reference(secret: str) -> str:
    return f"env:{GIT_SECRET}" if secret.startswith(("k8s:", "env:")) else secret


def _text(order: Mapping[str, Any]) -> File:
    # escaped, so that what is no Unicode text arrives as the bytes that it was
    return _made("order.json", json.dumps(order, indent=1).encode())


def _code(workspace: Workspace) -> tuple[File, ...]:
    if workspace.is_archive:
        # it travels as it is: the node looks at the bytes, not the name
        return tuple(attrs.evolve(file, path=ARCHIVE) for file in workspace.files)
    return tuple(attrs.evolve(file, path=f"code/{file.path}") for file in workspace.files)


def _made(path: str, content: bytes) -> File:
    return File(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), content=content)
