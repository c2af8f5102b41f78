"""Which launcher a command starts, and what the user told it: the command is looked at, never rewritten.

A shell line is split with shlex into simple commands (at ``;``, ``&``, ``|``, parentheses and line ends); leading
assignments and words such as ``env``, ``exec``, ``time`` and ``uv run`` are passed over; ``sh -c LINE`` is looked
into. The first simple command that is a known launcher decides: ``cd examples && torchrun train.py`` is torchrun's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from cloudtune.node.flags import SWITCHES, own_options

TORCHRUN, ACCELERATE, DEEPSPEED, COMMAND = "torchrun", "accelerate", "deepspeed", "command"

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_PYTHON = re.compile(r"python[0-9.]*")
_SHELLS = ("sh", "bash", "dash", "zsh")
_BREAKS = frozenset(";&|()\n")
#: Words that run the command behind them: their options that take a value, and how many plain words come first.
_WRAPPERS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "env": (("-u", "--unset", "-C", "--chdir"), 0),
    "exec": (("-a",), 0),
    "time": (("-f", "--format", "-o", "--output"), 0),
    "nice": (("-n", "--adjustment"), 0),
    "stdbuf": (("-i", "-o", "-e"), 0),
    "timeout": (("-k", "--kill-after", "-s", "--signal"), 1),
    "uv": (("--with", "--python", "-p", "--extra", "--group", "--project", "--env-file"), 1),
    "conda": (("-n", "--name", "-p", "--prefix", "--cwd"), 1),
    "poetry": ((), 1),
    "neuron_parallel_compile": (("--command",), 0),
} | dict.fromkeys(("command", "nohup", "numactl", "sudo", "then", "do", "else", "{", "!"), ((), 0))
_MODULES: Mapping[str, str] = {
    "torch.distributed.run": TORCHRUN,
    "torch.distributed.launch": TORCHRUN,
    "accelerate.commands.launch": ACCELERATE,
    "deepspeed": DEEPSPEED,
    "deepspeed.launcher.runner": DEEPSPEED,
}
#: The flags of a launcher that say how many nodes and processes there are, and whether the second counts all nodes'.
_FLAGS: Mapping[str, tuple[tuple[str, ...], str, bool]] = {
    "torchrun": (("nnodes", "nnode"), "nproc_per_node", False),
    "accelerate": (("num_machines",), "num_processes", True),
    "deepspeed": (("num_nodes",), "num_gpus", False),
}


class Seen(NamedTuple):
    """The launcher of a command, and its own options (without dashes, with ``_`` for ``-``); "" for a switch."""

    launcher: str
    options: Mapping[str, str]


def look(command: str | Sequence[str]) -> Seen:
    """Return the launcher that a shell line or an argv starts, with the options that stand before the script.

    >>> look("OMP_NUM_THREADS=8 torchrun --nproc-per-node=8 train.py --nnodes 3")
    Seen(launcher='torchrun', options={'nproc_per_node': '8'})
    """
    for words in _simple_commands(command) if isinstance(command, str) else [list(command)]:
        seen = _launcher(_unwrapped(words))
        if seen is not None:
            return seen
    return Seen(COMMAND, {})


def counts(seen: Seen, nodes: int, processes: int) -> tuple[int, int, tuple[str, ...]]:
    """Return nodes and processes a node as the user's own flags have them, and what to tell the user.

    A flag that is no plain number (``auto``, ``$N``, ``1:4``) is decided on the node and changes nothing here.
    """
    if seen.launcher not in _FLAGS:
        return nodes, processes, ()
    node_flags, process_flag, counts_all = _FLAGS[seen.launcher]
    notes: list[str] = []
    for flag in node_flags:
        told = seen.options.get(flag)
        if told is not None and not _is_count(told):
            notes.append(f"--{flag} {told} wins on the node; the plan has nodes = {nodes}")
        elif told is not None and int(told) != nodes:
            notes.append(f"--{flag} {told} wins over replicas: nodes = {told}, not {nodes}")
            nodes = int(told)
    told = seen.options.get(process_flag)
    if told is not None:
        total = int(told) if _is_count(told) else 0
        count, left = divmod(total, nodes) if counts_all else (total, 0)
        if not count or left:
            notes.append(f"--{process_flag} {told} wins on the node; the plan has {processes} processes a node")
        elif count != processes:
            notes.append(f"--{process_flag} {told} wins: {count} processes a node, not {processes}")
            processes = count
    return nodes, processes, tuple(notes)


def doubts(seen: Seen, nodes: int) -> Iterator[str]:
    """Say which of the user's flags cannot be right when the same line runs on several nodes."""
    if nodes == 1:
        return
    for flag in ("node_rank", "machine_rank"):
        if seen.options.get(flag, "").isdigit():
            yield f"--{flag} {seen.options[flag]} is the same on all {nodes} nodes; leave it out"
    if "standalone" in seen.options:
        yield f"--standalone makes every one of the {nodes} nodes a job of its own; leave it out"


def _simple_commands(line: str) -> Iterator[list[str]]:
    """Yield the words of every simple command of a shell line, unquoted."""
    lexer = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars=";&|()<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    try:
        for token in lexer:
            if token and set(token) <= _BREAKS:
                yield words
                words = []
            else:
                words.append(token)
    except ValueError:  # an unclosed quote is the shell's to complain about
        pass
    yield words


def _unwrapped(words: Sequence[str]) -> list[str]:
    """Return the words from the command's own name on: without assignments and without ``env``, ``exec``, ``time``."""
    rest = list(words)
    valued: tuple[str, ...] = ()
    plain = 0
    wrapped = False
    while rest:
        word = rest[0]
        if _ASSIGNMENT.match(word):
            rest = rest[1:]
        elif wrapped and word.startswith("-"):
            rest = rest[2:] if word in valued else rest[1:]
        elif plain:
            plain, rest = plain - 1, rest[1:]
        elif _base(word) in _WRAPPERS:
            valued, plain = _WRAPPERS[_base(word)]
            wrapped, rest = True, rest[1:]
        else:
            break
    return rest


def _launcher(words: Sequence[str]) -> Seen | None:
    name, rest = _base(words[0]) if words else "", list(words[1:])
    if name in _SHELLS:
        return _inside_shell(rest)
    if _PYTHON.fullmatch(name):
        module, rest = _module(rest)
        name = _MODULES.get(module, "")
        if module in ("accelerate", "accelerate.commands.accelerate_cli") and rest[:1] == ["launch"]:
            name, rest = ACCELERATE, rest[1:]
    elif name == "accelerate-launch":
        name = ACCELERATE
    elif name == ACCELERATE:
        if rest[:1] != ["launch"]:
            return None
        rest = rest[1:]
    return Seen(name, own_options(rest, SWITCHES[name])) if name in SWITCHES else None


def _inside_shell(words: Sequence[str]) -> Seen | None:
    """Look into ``sh -c LINE``, also spelled ``bash -lc LINE``."""
    for index, word in enumerate(words[:-1]):
        if not word.startswith("-"):
            return None
        if not word.startswith("--") and "c" in word:
            seen = look(words[index + 1])
            return None if seen.launcher == COMMAND else seen
    return None


def _module(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the module of ``python [options] -m MODULE ARGS`` and its arguments; "" where a script is run."""
    for index, word in enumerate(words):
        if word == "-m":
            return "".join(words[index + 1 : index + 2]), list(words[index + 2 :])
        if not word.startswith("-"):
            break
    return "", []


def _base(word: str) -> str:
    return word.rsplit("/", 1)[-1]


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) > 0
