"""What the Hub itself says of a model, to the user's own token if there is one; it never waits long."""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

_TIMEOUT_S = 5.0
_ENDPOINT = "https://huggingface.co"


@attrs.frozen(kw_only=True)
class Answer:
    """How a model stands; ``gated`` is None where the Hub did not say."""

    status: str
    message: str
    hint: str = ""
    gated: bool | None = None


def ask(name: str, environ: Mapping[str, str] = os.environ) -> Answer:
    """Return what the Hub says of a model."""
    token = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or None
    endpoint = environ.get("HF_ENDPOINT") or _ENDPOINT
    page = f"{endpoint}/{name}"
    hub = HfApi(endpoint=endpoint, token=token)
    try:
        gated = bool(hub.model_info(name, timeout=_TIMEOUT_S).gated)
        if gated:
            hub.auth_check(name)
    except GatedRepoError:
        hint = f"accept its licence: {page}" if token else f"accept its licence: {page}, then export HF_TOKEN=..."
        message = f"{name} is gated, and {'your token has' if token else 'without a token you have'} no access"
        return Answer(status="warning", message=message, hint=hint, gated=True)
    except RepositoryNotFoundError:
        message = f"the Hub has no model {name}, or does not show it {'to your token' if token else 'without a token'}"
        return Answer(status="problem", message=message, hint="check its name; a private one needs HF_TOKEN")
    except HfHubHTTPError as error:
        status = error.response.status_code
        return Answer(status="unknown", message=f"the Hub answered {status} when it was asked for {name}")
    except Exception as error:  # noqa: BLE001 - whatever the transport raises: it was not reached
        return Answer(status="unknown", message=f"the Hub was not reached: {type(error).__name__}", hint=page)
    how = "gated, and your token may read it" if gated else "not gated"
    return Answer(status="ok", message=f"the Hub has {name}: {how}", gated=gated)
