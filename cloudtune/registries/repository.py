"""One model's repository on the Hugging Face Hub, by means of the Hub's own library.

Addresses, retries and transfers are the library's: ``HF_ENDPOINT`` names another Hub, the token is ``HF_TOKEN`` or
that of ``hf auth login``, and large files go by Xet unless ``HF_HUB_DISABLE_XET=1`` has them go by LFS.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from cloudtune.errors import NotAllowed, ServiceError, UsageError
from cloudtune.registries.hub_errors import SERVICE, SIGN_IN, Cleaner, no_token, told

_BARS = "HF_HUB_DISABLE_PROGRESS_BARS"


@attrs.frozen(kw_only=True)
class State:
    """What a repository is now: its newest commit, whether everybody may read it, and the commits of its tags."""

    head: str
    public: bool
    tags: Mapping[str, str]


@attrs.frozen(kw_only=True)
class Held:
    """A file as the Hub has it: its SHA-256 if it is stored apart, as large files are, and its id as a git blob."""

    bytes: int
    blob: str
    sha256: str | None

    def is_file(self, path: Path, sum_: str) -> bool:
        """Return whether it has the content of a file of this machine, whose SHA-256 is known."""
        if self.sha256 is not None:
            return self.sha256 == sum_
        if path.stat().st_size != self.bytes:
            return False
        data = path.read_bytes()  # what is not stored apart is small
        if hashlib.sha256(data).hexdigest() != sum_:
            raise UsageError(f"{path} has changed while it was filed", hint="wait until the model is written")
        return self.blob == blob_id(data)


def blob_id(data: bytes) -> str:
    """Return the id that git gives a content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Repository:
    """A repository of the signed-in user, or of an organization; every error says what to do.

    Raises:
        NotAllowed: nobody is signed in.
    """

    def __init__(self, name: str) -> None:
        self.name, self._token = name, ""
        with self._told("sign_in"):
            self._token = get_token() or ""
        if not self._token:
            raise no_token()
        if not self._token.isascii() or not self._token.isprintable() or " " in self._token:
            raise NotAllowed("the token for the Hub holds characters that no token has", hint=SIGN_IN)
        self._api = HfApi(
            endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None,
            token=self._token,
            library_name="cloudtune",
            library_version=metadata.version("cloudtune"),
        )

    def look(self) -> State | None:
        """Return what the repository is now; None if there is none, or none that the token may see."""
        with self._told("look_up"):
            try:
                found = self._api.repo_info(self.name)
                refs = self._api.list_repo_refs(self.name)
            except RepositoryNotFoundError:
                return None
        if found.sha is None:
            raise ServiceError(f"{self.name} has no commit", service=SERVICE, operation="look_up", hint="try again")
        tags = {tag.name: tag.target_commit for tag in refs.tags}
        return State(head=found.sha, public=not found.private, tags=tags)

    def check_owner(self) -> None:
        """Raise NotAllowed if the token is not valid, or not one of the owner to be."""
        with self._told("whoami"):
            user = self._api.whoami()
        mine = [str(user.get("name")), *(str(one.get("name")) for one in user.get("orgs") or ())]
        owner = self.name.partition("/")[0]
        if owner.lower() not in {one.lower() for one in mine}:
            hint = f"the token can file models below {', '.join(mine)}; join {owner}, or take its token"
            raise NotAllowed(f"{owner} on the Hub is neither you nor an organization of yours", hint=hint)

    def create(self, *, public: bool) -> None:
        """Create the repository; it is fine if somebody was faster.

        Raises:
            NotAllowed: there is one that the token may not see, or none may be made there.
        """
        with self._told("create"):
            try:
                self._api.create_repo(self.name, private=not public)
            except HfHubHTTPError as error:
                if error.response.status_code != 409:
                    raise
                if self.look() is None:
                    hint = "choose another name, or ask its owner for access"
                    raise NotAllowed(f"{self.name} on the Hub is somebody else's", hint=hint) from None

    def files(self, commit: str) -> dict[str, Held]:
        """Return the files at a commit by path."""
        with self._told("list"):
            tree = self._api.list_repo_tree(self.name, recursive=True, revision=commit)
            return {
                one.path: Held(bytes=one.size, blob=one.blob_id, sha256=one.lfs.sha256 if one.lfs else None)
                for one in tree
                if isinstance(one, RepoFile)
            }

    def read_json(self, commit: str, path: str) -> dict[str, Any]:
        """Return a small file at a commit; empty if it holds no JSON object."""
        with self._told("read"), TemporaryDirectory(prefix="cloudtune-hub-") as folder, self._quiet():
            place = self._api.hf_hub_download(self.name, path, revision=commit, local_dir=folder)
            try:
                value = json.loads(Path(place).read_bytes())
            except (ValueError, RecursionError):
                return {}
        return value if isinstance(value, dict) else {}

    def commit(
        self,
        files: Mapping[str, Path | bytes],
        sums: Mapping[str, str],
        *,
        removed: Sequence[str],
        parent: str,
        message: str,
    ) -> str | None:
        """Send what the Hub does not have of the files, show all of them by one commit, and return it.

        Returns None if somebody else has committed since ``parent``; what was sent stays there for another try.
        """
        with self._told("upload"), self._quiet():
            adds = []
            for path, file in files.items():
                add = CommitOperationAdd(path_in_repo=path, path_or_fileobj=file)
                if path in sums:
                    add.upload_info.sha256 = bytes.fromhex(sums[path])  # else the library reads it once more
                adds.append(add)
            removals = [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in removed]
            try:
                done = self._api.create_commit(
                    self.name, [*adds, *removals], commit_message=message, parent_commit=parent
                )
            except HfHubHTTPError as error:
                if error.response.status_code in {409, 412} and "/commit/" in error.response.request.url.path:
                    return None
                raise
        return done.oid

    def tag(self, version: str, commit: str) -> None:
        """Tag a commit; it is fine if it has the tag already.

        Raises:
            ServiceError: another commit has it.
        """
        with self._told("tag"):
            self._api.create_tag(self.name, tag=version, revision=commit, exist_ok=True)
            state = self.look()
        if state is None or state.tags.get(version) != commit:
            message = f"{self.name}: tag {version} is at another commit"
            raise ServiceError(message, service=SERVICE, operation="tag", hint="leave --version out, or name another")

    def _told(self, operation: str) -> AbstractContextManager[None]:
        return told(operation, self.name, self._token)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Keep the library's progress bars out of files and pipes, and secrets out of its warnings."""
        silent = not (sys.stderr.isatty() or are_progress_bars_disabled() or _BARS in os.environ)
        if silent:
            disable_progress_bars()
        cleaner, handlers = Cleaner(self._token), tuple(logging.getLogger("huggingface_hub").handlers)
        for handler in handlers:
            handler.addFilter(cleaner)
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(cleaner)
            if silent:
                enable_progress_bars()
