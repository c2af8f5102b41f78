"""What the Hub's library raises, as errors that say who can mend them; no token and no signed address is in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from cloudtune.errors import CloudtuneError, NoCapacity, NotAllowed, ServiceError, UsageError
from cloudtune.uri import shown

SERVICE = "hub"
SIGN_IN = "export HF_TOKEN=... with a token that may write, or hf auth login"
_AGAIN = "try again: what has been sent is not sent again"


def no_token() -> NotAllowed:
    """Return the error of somebody who is not signed in."""
    return NotAllowed("there is no token for the Hub on this machine", hint=SIGN_IN)


@contextmanager
def told(operation: str, name: str, token: str) -> Iterator[None]:
    """Turn whatever the Hub's library raises into an error that names the repository and says what to do."""
    try:
        yield
    except CloudtuneError:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises its own, the transport's and plain ones
        # the library's own error stays attached for --debug, unless its words hold what nobody may see
        raise _in_words(error, operation, name, token) from (error if _is_harmless(error, token) else None)


def clean(text: str, token: str) -> str:
    """Return a text without the token and without what signs an address."""
    return shown(text.replace(token, "***") if token else text)


class Cleaner(logging.Filter):
    """Has a handler of the library's log write no secrets: it warns of retries with the whole signed address."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self.token = token

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a line on its way out."""
        record.msg, record.args = clean(record.getMessage(), self.token), ()
        return True


def _is_harmless(error: BaseException | None, token: str) -> bool:
    while error is not None:
        text = f"{error} {error.args!r}"
        if clean(text, token) != text:
            return False
        error = error.__cause__ or error.__context__
    return True


def _in_words(error: Exception, operation: str, name: str, token: str) -> CloudtuneError:
    cause = _cause(error)
    said = clean(str(cause).strip().partition("\n")[0], token) or type(cause).__name__
    if isinstance(cause, HfHubHTTPError):
        return _refused(cause, operation, name, token)
    if isinstance(cause, LocalTokenNotFoundError):
        return no_token()
    if isinstance(cause, OfflineModeIsEnabled):
        return UsageError("the Hub is not asked while HF_HUB_OFFLINE is set", hint="unset HF_HUB_OFFLINE")
    if isinstance(cause, OSError) and not isinstance(cause, (ConnectionError, TimeoutError)):
        return CloudtuneError(f"a file of the model cannot be read: {said}", hint="check the disk, then register again")
    if isinstance(cause, ValueError) and "README.md" in said:
        lines = " ".join(clean(str(cause), token).split())
        return UsageError(f"the Hub does not take the model's card: {lines}", hint="mend the head of README.md")
    hint = _AGAIN
    if "xet" in f"{type(cause).__module__} {said}".lower():
        hint = "try again, or without Xet: HF_HUB_DISABLE_XET=1"
    elif isinstance(cause, ValueError):
        hint = "is it really a Hub that HF_ENDPOINT names?"
    operation = _operation(cause, operation)
    # a commit whose answer was lost may have been made; the next try finds it
    return ServiceError(
        f"{name}: {said}", service=SERVICE, operation=operation, definite=operation != "commit", hint=hint
    )


def _cause(error: BaseException) -> BaseException:
    """Return what went wrong below the library's ``Error while uploading``."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _operation(error: BaseException, operation: str) -> str:
    """Return ``commit`` for what went wrong at the last request of an upload."""
    try:
        path = error.request.url.path  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # no error of a request, or of none that was made
        return operation
    return "commit" if "/commit/" in path else operation


def _refused(error: HfHubHTTPError, operation: str, name: str, token: str) -> CloudtuneError:
    """Return what an answer of the Hub, or of the store behind it, means."""
    status = error.response.status_code
    said = " ".join(clean(error.server_message or str(error), token).split())[:300]
    to_store = error.response.request.method == "PUT"  # such requests carry a signature in place of the token
    if status == 401 and not to_store:
        return NotAllowed(f"the Hub does not accept the token: {said}", hint=SIGN_IN)
    if status == 402:
        return NoCapacity(f"{name}: {said}", hint="the owner's plan has no room for it: free some, or ask the owner")
    if status == 403 and not to_store:
        owner = name.partition("/")[0]
        hint = f"take a token that may write to it, or ask {owner} for the right to"
        return NotAllowed(f"the token may not {operation.replace('_', ' ')} {name} on the Hub: {said}", hint=hint)
    hint = {
        404: "check the name, and that the token may see it",
        409: "somebody else changes it at the same time: try again",
        412: "somebody else changes it at the same time: try again",
        429: "wait a few minutes, then try again",
    }.get(status, _AGAIN)
    return ServiceError(
        f"{name}: {status} {said}",
        service=SERVICE,
        operation=_operation(error, operation),
        request_id=error.request_id,
        hint=hint,
    )
