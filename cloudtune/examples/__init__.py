"""The ready-made jobs and pipelines that travel in the package; ``specs/`` in the repository is a copy of them.

An example is one YAML file or a folder of files. Its summary is the first heading or comment of its first text file.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from cloudtune.errors import UsageError

_HERE = Path(__file__).parent


def summaries() -> dict[str, str]:
    """Return the name and the one-line summary of every example.

    >>> "quickstart" in summaries()
    True
    """
    return {name: _summary(source) for name, source in sorted(_examples())}


def write(name: str, folder: Path | None = None, *, force: bool = False) -> tuple[Path, ...]:
    """Write an example below ``folder`` (the current one by default) and return the files written.

    A single file becomes ``NAME.yaml``, a folder becomes ``NAME/``. Files that are there are written over only with
    ``force``.

    Raises:
        UsageError: there is no example of that name, or a file is there already; nothing was written.
    """
    known = dict(_examples())
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"examples: {', '.join(sorted(known))}"
        raise UsageError(f"there is no example {name!r}", hint=hint)
    source = known[name]
    target = (folder or Path()) / source.name
    pairs = [(target / item.name, item) for item in source.iterdir() if item.is_file()] if source.is_dir() else []
    pairs = sorted(pairs, key=lambda pair: pair[0]) or [(target, source)]
    taken = [path for path, _ in pairs if path.exists()]
    if taken and not force:
        raise UsageError(f"{taken[0]} is there already", hint="--force writes over it")
    for path, item in pairs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.read_bytes())
    return tuple(path for path, _ in pairs)


def _examples() -> Iterator[tuple[str, Path]]:
    for item in _HERE.iterdir():
        if item.is_dir() and (item / "README.md").is_file():
            yield item.name, item
        elif item.name.endswith(".yaml"):
            yield item.name.removesuffix(".yaml"), item


def _summary(source: Path) -> str:
    text = (source / "README.md" if source.is_dir() else source).read_text(encoding="utf-8")
    return text.partition("\n")[0].lstrip("# ").rstrip(".")
