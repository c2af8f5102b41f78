"""Which model a word means: a folder or a URI as it is, or ``NAME[:VERSION]`` of ``register``."""

from __future__ import annotations

import difflib
import os
import re

from cloudtune.errors import CloudtuneError, UsageError
from cloudtune.home import home
from cloudtune.store import Model, Store
from cloudtune.uri import local_path, scheme_of

#: What ``register`` files a model under, on the Hub with its owner, and perhaps a version.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(:[\w.-]+)?")
#: Places of models whose files are not reached by the URI in the record: what they are called.
_CATALOGS = {
    "oci-model": "the model catalog of OCI Data Science",
    "bedrock-model": "Amazon Bedrock",
    "sagemaker-package": "SageMaker's model registry",
}


def place_of(text: str, *, hub: bool = False) -> str:
    """Return where a model lies: of a registered one its folder or URI, whatever else the text is as it stands.

    A version that is not named is the newest. ``hub`` says that a bare name may also be one on the Hugging Face Hub.

    Raises:
        UsageError: a folder here and a registered model both have the name, the model has no such version, its files
            cannot be reached, or nothing has that name.
    """
    if not _NAME.fullmatch(text):
        return text
    if os.path.exists(text):  # noqa: PTH110 - the text may be too long for a path
        _check_alone(text)
        return text
    found = registered(text)
    if found is None:
        if "/" in text or hub:
            return text
        raise _nothing(text)
    if (catalog := _CATALOGS.get(scheme_of(found.uri))) is not None:
        others = (one for one in Store().models(found.name) if scheme_of(one.uri) not in _CATALOGS)
        names = ", ".join(f"{one.name}:{one.version}" for one in others)
        hint = f"elsewhere lies {names}" if names else "name the folder or bucket that it was registered from"
        raise UsageError(f"{found.name}:{found.version} lies in {catalog}, where its files are not read", hint=hint)
    path = local_path(found.uri)
    if path is not None and not path.exists():
        hint = f"register it again, or forget it: cloudtune delete {found.name}:{found.version}"
        raise UsageError(f"the files of {found.name}:{found.version} are gone: {path}", hint=hint)
    return found.uri if path is None else str(path)


def registered(text: str) -> Model | None:
    """Return the registered model that ``NAME`` or ``NAME:VERSION`` means, the newest version if none is named.

    Raises:
        UsageError: there is a model of that name, but not that version of it.
    """
    if not (home() / "store.db").exists():  # reading must not leave a home where there is none
        return None
    name, _, version = text.partition(":")
    versions = Store().models(name)
    found = next((one for one in versions if not version or one.version == version), None)
    if versions and found is None:
        hint = f"its versions: {', '.join(f'{name}:{one.version}' for one in versions[:5])}"
        raise UsageError(f"model {name} has no version {version}", hint=hint)
    return found


def _check_alone(text: str) -> None:
    """Raise UsageError if a registered model has the name of a folder here, and lies elsewhere."""
    try:
        found = registered(text)
    except CloudtuneError:  # no such version, or a record that cannot be read: the folder is meant
        return
    path = local_path(found.uri) if found is not None else None
    if found is None or (path is not None and path.exists() and path.samefile(text)):
        return
    named = f"{found.name}:{found.version}"
    word = named if named != text else path or found.uri
    hint = f"write ./{text} for the folder, or {word} for the model"
    raise UsageError(f"{text} is a folder here, and a registered model, too", hint=hint)


def nearest(text: str) -> str:
    """Return what to say to somebody who named no registered model: the names that are near, or where they all are."""
    names = {one.name for one in Store().models()} if (home() / "store.db").exists() else set()
    near = difflib.get_close_matches(text.partition(":")[0], sorted(names), n=3)
    return f"nearest: {', '.join(near)}" if near else "cloudtune list --models shows the registered ones"


def _nothing(text: str) -> UsageError:
    told = nearest(text)
    hint = f"{told}; a model on the Hub is hf://OWNER/NAME"
    return UsageError(f"{text} is neither a folder here nor a registered model", hint=hint)
