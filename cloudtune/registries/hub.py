"""Models filed on the Hugging Face Hub: a repository a model, a commit and a tag a version.

The repository never shows half a model: files are sent first, and one commit shows them. The record that is committed
with them tells later versions which files are theirs to replace. Every step finds out what is done already, so a
second call goes on where the first was interrupted.

A folder of this machine is sent from where it lies. A model from elsewhere is fetched first, below the home: the Hub
is told a file's hash before it takes the file, retries start over, and Xet takes files only, so streaming would fetch
everything twice; and what has been fetched serves the next try as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudtune.errors import MissingExtra, ServiceError, UsageError
from cloudtune.registries.source import FILED, Source, find
from cloudtune.registries.workplace import claimed
from cloudtune.spec.verbs import wrong_hub_name, wrong_hub_version
from cloudtune.store import Model

try:
    from cloudtune.registries.hub_errors import SERVICE
    from cloudtune.registries.repository import Held, Repository, State, blob_id
except ImportError as error:
    raise MissingExtra("local", "filing a model on the Hub") from error

_MODEL_FILES = ("config.json", "adapter_config.json", ".safetensors", ".bin", ".gguf")
#: Times that somebody else may commit in between.
_TRIES = 5


def register(model: str | Path, *, name: str, version: str | None = None, public: bool = False, home: Path) -> Model:
    """File a model under ``owner/name`` and a tag, by default the next whole number.

    The same model again is the same version: nothing is sent then.

    Raises:
        UsageError: there is no model, it is not what its own record says, the version is taken, or the repository
            holds what was not filed by this library, or is seen by more or fewer people than asked for.
        NotAllowed: nobody is signed in, or the token has not the rights.
        ServiceError: the Hub or the way to it failed, or it does not hold what was sent.
    """
    for wrong in (wrong_hub_name(name), None if version is None else wrong_hub_version(version)):
        if wrong is not None:
            raise UsageError(wrong[0], hint=wrong[1])
    source = find(model)
    repository = Repository(name)
    state = repository.look()
    if state is None:
        repository.check_owner()
    else:
        _check_visibility(name, state, public=public)
    with _at_hand(source, home / "hub" / name.replace("/", "--")) as (folder, sums):
        for _ in range(_TRIES):
            state = repository.look()
            if state is None:
                repository.create(public=public)
                continue
            _check_visibility(name, state, public=public)
            filing = _Filing(repository, state, folder, {"name": name, **source.facts, "checksums": sums})
            done = filing.file(version)
            if done is not None:
                return Model(
                    name=name,
                    version=done[0],
                    uri=f"hf://{name}@{done[1]}",
                    checksums=sums,
                    created=time.time(),
                    **source.facts,
                )
    message = f"{name}: somebody else kept changing it"
    raise ServiceError(message, service=SERVICE, operation="commit", hint="try again when they are done")


def _check_visibility(name: str, state: State, *, public: bool) -> None:
    if state.public and not public:
        hint = "add --public if the model is for everybody, or choose another name"
        raise UsageError(f"{name} on the Hub is public", hint=hint)
    if public and not state.public:
        hint = "leave --public out, or change that on its page; a model is not shown to everybody in passing"
        raise UsageError(f"{name} on the Hub is private", hint=hint)


@contextmanager
def _at_hand(source: Source, shelf: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Give the folder of a model on this machine, and the checksums of its files, compared with its record."""
    if source.folder is not None:
        yield source.folder, source.verified()
        return
    with claimed(shelf, source) as place:
        yield place.folder, place.gather(source)


class _Filing:
    """One try to file a model in a repository as it is now; ``facts`` are the record but for the version."""

    def __init__(self, repository: Repository, state: State, folder: Path, facts: Mapping[str, Any]) -> None:
        self.repository, self.state, self.folder, self.facts = repository, state, folder, facts
        self.sums: Mapping[str, str] = facts["checksums"]
        self.held = repository.files(state.head)
        self.known = self._known()

    def file(self, version: str | None) -> tuple[str, str] | None:
        """Return version and commit when all is done; None if somebody else has committed meanwhile."""
        known_version = self.known.get("version")
        chosen = version or self._next_version()
        wrong = self._wrong(self.held)
        if version is None and not wrong and isinstance(known_version, str) and self._is_known():
            chosen = known_version
        tagged = self.state.tags.get(chosen)
        if tagged is not None:
            if self._wrong(self.repository.files(tagged)):
                hint = "leave --version out for the next number; nothing was sent"
                raise UsageError(f"model {self.repository.name} has a version {chosen} already", hint=hint)
            return chosen, tagged
        commit: str | None = self.state.head
        if wrong or not self._is_known() or known_version != chosen:
            commit = self._commit(wrong, chosen)
            if commit is None:
                return None
        assert commit is not None
        self.repository.tag(chosen, commit)
        return chosen, commit

    def _known(self) -> dict[str, Any]:
        """Return the record that was committed last; raises UsageError if the repository is used for something else."""
        known = self.repository.read_json(self.state.head, FILED) if FILED in self.held else {}
        if known.get("name") == self.repository.name and isinstance(known.get("checksums"), dict):
            return known
        wrong = self._wrong(self.held)
        foreign = sorted(
            path for path in self.held if path.endswith(_MODEL_FILES) and (path in wrong or path not in self.sums)
        )
        if foreign:
            raise UsageError(
                f"{self.repository.name} on the Hub holds files that cloudtune did not file: {', '.join(foreign[:3])}",
                hint="choose another name; nothing was changed there",
            )
        return {}

    def _is_known(self) -> bool:
        known = {key: value for key, value in self.known.items() if key != "version"}
        return json.dumps(known, sort_keys=True) == json.dumps(self.facts, sort_keys=True)

    def _next_version(self) -> str:
        names = [*self.state.tags, str(self.known.get("version"))]
        return str(max((int(name) for name in names if name.isdecimal()), default=0) + 1)

    def _wrong(self, held: Mapping[str, Held]) -> list[str]:
        """Return the files of the model that are not there, or are others."""
        return [
            path
            for path, sum_ in self.sums.items()
            if path not in held or not held[path].is_file(self.folder / path, sum_)
        ]

    def _commit(self, wrong: list[str], version: str) -> str | None:
        record = json.dumps({**self.facts, "version": version}, indent=2, ensure_ascii=False).encode() + b"\n"
        stale = [path for path in self.known.get("checksums", ()) if path in self.held and path not in self.sums]
        commit = self.repository.commit(
            {**{path: self.folder / path for path in wrong}, FILED: record},
            self.sums,
            removed=stale,
            parent=self.state.head,
            message=f"Register version {version}",
        )
        if commit is not None:
            self._check(commit, record, stale)
        return commit

    def _check(self, commit: str, record: bytes, stale: list[str]) -> None:
        """Raise ServiceError unless the Hub has, at a commit, exactly what was sent; read back from there."""
        held = self.repository.files(commit)
        wrong = self._wrong(held) + [path for path in stale if path in held]
        if FILED not in held or held[FILED].blob != blob_id(record):
            wrong.append(FILED)
        if wrong:
            raise ServiceError(
                f"{self.repository.name} does not hold what was sent, at commit {commit}: {', '.join(wrong[:5])}",
                service=SERVICE,
                operation="read_back",
                hint="no version was tagged; register again to send these files again",
            )
