"""Small commands that go first on PATH: they start launchers with the right Python and ranks with streams of their own.

No process stays behind: every one of them ends in ``exec``. A rank's shim tells the agent its rank and pid, then
connects the rank's output to pipes that only this rank writes, so each line is labelled without touching user code.
It leaves output alone that the user sent elsewhere (a pipe, a file, torchrun's own ``--redirects``).
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloudtune.node.launchers import accelerate_arguments, deepspeed_arguments, hostfile_text

_RANK = """\
#!/bin/sh
if [ -z "${{LOCAL_RANK:-}}" ]; then
  if [ "$1 $2 $3" = "-u -m deepspeed.launcher.launch" ]; then
    shift 3
    exec {python} -u -c {deepspeed} "$@"
  fi
  exec {python} "$@"
fi
slot=$LOCAL_RANK
if [ "${{LOCAL_WORLD_SIZE:-0}}" -gt 0 ]; then slot=$((${{RANK:-0}} % LOCAL_WORLD_SIZE)); fi
out={pipes}/$slot.stdout
err={pipes}/$slot.stderr
if [ -e /proc/self/fd/1 ]; then
  [ /proc/self/fd/1 -ef {pipes}/stdout ] && [ /proc/self/fd/2 -ef {pipes}/stderr ] || out=
fi
if [ -n "$out" ] && [ -p "$out" ]; then
  echo "${{RANK:-$LOCAL_RANK}} $LOCAL_RANK $slot $$" >{pipes}/events
  exec {python} "$@" >"$out" 2>"$err"
fi
echo "${{RANK:-$LOCAL_RANK}} $LOCAL_RANK - $$" >{pipes}/events
exec {python} "$@"
"""
_PYTHON = """\
#!/bin/sh
case "$*" in
"-m torch.distributed.run "* | "-u -m torch.distributed.run "* | "-m torch.distributed.launch "*)
  [ -n "${{PYTHON_EXEC:-}}" ] || PYTHON_EXEC={rank}
  export PYTHON_EXEC
  ;;
"-m accelerate.commands.launch "*) shift 2; exec {tools}/accelerate-launch "$@" ;;
"-m deepspeed.launcher.runner "*) shift 2; exec {tools}/deepspeed "$@" ;;
esac
exec {python} "$@"
"""
_TORCHRUN = """\
#!/bin/sh
[ -n "${{PYTHON_EXEC:-}}" ] || PYTHON_EXEC={rank}
export PYTHON_EXEC
exec {python} -m torch.distributed.run "$@"
"""
_LAUNCHER = """\
#!/bin/sh
exec {agent_python} -I -S {archive} shim {name} {python} {tools} "$@"
"""
#: deepspeed starts its ranks by ``sys.executable``: the shim takes that place in the process that starts them.
_DEEPSPEED = (
    "import runpy, sys; sys.executable = {rank!r}; "
    "runpy.run_module('deepspeed.launcher.launch', run_name='__main__', alter_sys=True)"
)


def write_shims(tools: Path, *, python: str, pipes: Path, archive: str, agent_python: str) -> None:
    """Write the commands ``torchrun``, ``accelerate``, ``deepspeed``, ``python`` and ``rank`` into a folder."""
    tools.mkdir(parents=True, exist_ok=True)
    rank = str(tools / "rank")
    words = {
        "python": shlex.quote(python),
        "pipes": shlex.quote(str(pipes)),
        "tools": shlex.quote(str(tools)),
        "archive": shlex.quote(archive),
        "agent_python": shlex.quote(agent_python),
        "rank": shlex.quote(rank),
        "deepspeed": shlex.quote(_DEEPSPEED.format(rank=rank)),
    }
    texts = {"rank": _RANK, "torchrun": _TORCHRUN, "python": _PYTHON, "python3": _PYTHON}
    scripts = {name: text.format(**words) for name, text in texts.items()}
    for name in ("accelerate", "accelerate-launch", "deepspeed"):
        scripts[name] = _LAUNCHER.format(name=name, **words)
    for name, script in scripts.items():
        path = tools / name
        path.write_text(script, encoding="utf-8")
        path.chmod(0o700)


def launcher_command(
    name: str, arguments: Sequence[str], *, python: str, tools: Path, variables: Mapping[str, str]
) -> list[str]:
    """Return the argv that a launcher's shim becomes."""
    if name == "deepspeed":
        hostfile = tools / "hostfile"
        hostfile.write_text(hostfile_text(variables), encoding="utf-8")
        start = f"import sys; sys.executable = {str(tools / 'rank')!r}; "
        start += "from deepspeed.launcher.runner import main; sys.exit(main())"
        return [python, "-c", start, *deepspeed_arguments(arguments, variables, hostfile=str(hostfile))]
    words = list(arguments)
    if name == "accelerate":
        if words[:1] != ["launch"]:
            return [python, "-m", "accelerate.commands.accelerate_cli", *words]
        words = words[1:]
    words = accelerate_arguments(words, variables, has_config=_has_accelerate_config(variables))
    return [python, "-m", "accelerate.commands.launch", *words]


def _has_accelerate_config(variables: Mapping[str, str]) -> bool:
    cache = variables.get("XDG_CACHE_HOME") or str(Path(variables.get("HOME") or "/") / ".cache")
    home = Path(variables.get("HF_HOME") or Path(cache) / "huggingface") / "accelerate"
    return any((home / f"default_config.{ending}").is_file() for ending in ("yaml", "yml", "json"))


def become_launcher(arguments: Sequence[str]) -> int:
    """Turn this process into a launcher; ``arguments`` are its name, the job's Python, the tools, and its own."""
    name, python, tools, *own = arguments
    variables = dict(os.environ)
    try:
        command = launcher_command(name, own, python=python, tools=Path(tools), variables=variables)
    except KeyError as missing:
        sys.stderr.write(f"{name}: {missing.args[0]} is not set; this {name} works inside a cloudtune job only\n")
        return 1
    if name != "deepspeed":
        variables.setdefault("PYTHON_EXEC", str(Path(tools) / "rank"))
    os.execve(python, command, variables)  # noqa: S606 - this process becomes the launcher
    return 1
