"""``cloudtune run``: plan, submit, watch."""

from __future__ import annotations

import click

from cloudtune.cli import options


@click.command("run")
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="The job or pipeline.")
@options.spec
@click.option("--infrastructure", metavar="FILE|PROFILE", help="Run the same job elsewhere.")
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the run is on its way.")
@click.option("--dry-run", "--dryrun", is_flag=True, help="Print the plan; nothing is sent.")
@click.option("--resume", metavar="RUN", help="Continue a run where it stopped.")
@options.output("text", "json", "yaml")
@click.option("-q", "--quiet", is_flag=True, help="Print the run's id only.")
def command(
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
    100 failed or lost, 103 cancelled, 130 interrupted (the run goes on).
    """
    from cloudtune import verbs

    if file is None and resume is None:
        raise click.UsageError("name a job: cloudtune run -f job.yaml")
    spec = None
    if file is not None:
        spec = verbs.read(file, set=set_, env=env, infrastructure=infrastructure, allow_file=allow_file)
    if dry_run:
        from cloudtune.cli.plans import show_plan

        if spec is None:
            raise click.UsageError("a dry run needs a job: cloudtune run --dry-run -f job.yaml")
        show_plan(verbs.plan(spec), output)
        return 0

    from cloudtune.cli.watching import follow, tell_uploads, warn

    if spec is not None and not quiet:
        plan = verbs.plan(spec)
        warn(notice for notice in plan.warnings if "is a placeholder" not in notice.message)
        tell_uploads(plan)
    run = verbs.run(
        spec, resume=resume, progress=None if quiet else lambda step, what: click.echo(f"{step}: {what}", err=True)
    )
    if quiet:
        click.echo(run.id)
    else:
        click.echo(f"run {run.id} ({run.name})", err=True)
    if detach:
        if not quiet:
            click.echo(f"watch it with: cloudtune watch {run.id}", err=True)
        if output != "text":
            options.emit(run.to_dict(), output)
        return 0
    return follow(run, output=output, quiet=quiet)
