"""``cloudtune run``: plan, submit, watch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cloudtune.cli import options
from cloudtune.cli.talk import say

if TYPE_CHECKING:
    from cloudtune.runs import Run
    from cloudtune.verbs import Spec


@click.command("run")
@click.argument("job", required=False, metavar="[FILE]")
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="The job or pipeline.")
@options.spec
@click.option("--infrastructure", metavar="FILE|PROFILE", help="Run the same job elsewhere.")
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the run is on its way; with -q it prints the id.")
@click.option("--dry-run", "--dryrun", is_flag=True, help="Print the plan; nothing is sent.")
@click.option("--resume", metavar="RUN", help="Continue a run where it stopped.")
@options.output("text", "json", "yaml")
@click.option("-q", "--quiet", is_flag=True, help="Print the run's id only; with -o json or yaml, the result only.")
def command(
    job: str | None,
    file: str | None,
    set_: tuple[str, ...],
    env: tuple[str, ...],
    allow_file: tuple[str, ...],
    infrastructure: str | None,
    detach: bool,
    dry_run: bool,
    resume: str | None,
    output: str,
    quiet: bool,
) -> int:
    """Plan, submit and watch a job or a pipeline; ends with the run's result.

    Ctrl-C or a closed terminal leaves the run going. Exit codes: 0 succeeded, 2 the job as written is wrong,
    100 failed or lost, 101 not finished (nobody reads any more), 103 cancelled, 130 interrupted (the run goes on).
    """
    from cloudtune import verbs

    if file is not None and job is not None:
        raise click.UsageError(f"two files are named, {file} and {job}")
    file = file or job
    if file is None and resume is None:
        raise click.UsageError("name a job: cloudtune run -f job.yaml")
    spec = None
    if file is not None:
        spec = verbs.read(file, set=set_, env=env, infrastructure=infrastructure, allow_file=allow_file)
    if dry_run:
        from cloudtune.cli.plans import show_plan

        if spec is None:
            raise click.UsageError("a dry run needs a job: cloudtune run --dry-run -f job.yaml")
        show_plan(verbs.run(spec, dry_run=True), output)
        return 0
    run = _submitted(spec, resume, quiet=quiet)
    if run is None:
        return 130
    if detach:
        if output != "text":
            options.emit(run.to_dict(), output)
        elif quiet:
            click.echo(run.id)
        if not quiet:
            say(f"watch it with: cloudtune watch {run.id}")
        return 0

    from cloudtune.cli.watching import follow

    return follow(run, lambda: _show(run, output, quiet=quiet))


def _submitted(spec: Spec | None, resume: str | None, *, quiet: bool) -> Run | None:
    """Submit or continue and tell how far it has come; return None when it was interrupted."""
    from cloudtune import verbs
    from cloudtune.cli.watching import tell_uploads, warn

    name, known = "", []
    if spec is not None and not quiet:
        plan = verbs.plan(spec)
        name = f" ({plan.name})"
        warn(notice for notice in plan.warnings if "is a placeholder" not in notice.message)
        tell_uploads(plan)

    def announce(run_id: str) -> None:
        known.append(run_id)
        if not quiet:
            say(f"run {run_id}{name}")

    try:
        return verbs.run(
            spec,
            resume=resume,
            announce=announce,
            progress=None if quiet else lambda step, what: say(f"{step}: {what}"),
        )
    except KeyboardInterrupt:
        if known:
            say(f"\nrun {known[0]} may not be fully submitted; go on with: cloudtune run --resume {known[0]}")
        else:
            say("\nnothing was submitted")
        return None


def _show(run: Run, output: str, *, quiet: bool) -> None:
    """Show a run until its end, in the form that was asked for."""
    from cloudtune.cli.watching import show_lines, tell_end
    from cloudtune.runs import label

    if quiet:
        if output == "text":
            click.echo(run.id)
        run.wait()
    elif output == "text":
        show_lines(run.lines(follow=True), live=sys.stderr.isatty())
        tell_end(run)
    else:
        for line in run.lines(follow=True):
            say(label(line) + line.text)
    if output != "text":
        options.emit(run.to_dict(), output)
