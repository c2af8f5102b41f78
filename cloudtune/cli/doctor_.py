"""``cloudtune doctor``: what keeps a job from running, before it is submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli import options

if TYPE_CHECKING:
    from cloudtune.diagnosis.findings import Report


@click.command("doctor")
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="A job or pipeline, with the places it goes to.")
@click.option("--set", "set_", multiple=True, metavar="A.B=V", help="Set a key of the file; repeatable.")
@click.option(
    "-e", "--env", multiple=True, metavar="NAME[=V]", help="Set a variable; a bare name is read from the shell."
)
@click.option("--infrastructure", metavar="FILE|PROFILE", help="The same job elsewhere.")
@click.option("--write", is_flag=True, help="Put a small object into each bucket of outputs, and remove it.")
@options.output("text", "json", "yaml")
def command(
    file: str | None, set_: tuple[str, ...], env: tuple[str, ...], infrastructure: str | None, write: bool, output: str
) -> int:
    """Look for what keeps a job from running: this machine, the job's file, and what it needs where it goes.

    Without a file nothing is asked over the network. With one, the cloud is asked with your own rights whether each
    thing exists and fits; what is missing is said with the policy that grants it. Nothing is changed, and no secret's
    value is read. Ends with 1 if there is a problem; warnings, and what is unknown, alone are fine.
    """
    from cloudtune import verbs

    report = verbs.doctor(file, set=set_, env=env, infrastructure=infrastructure, write=write)
    if output == "text":
        _show(report)
    else:
        options.emit(report.to_dict(), output)
    return 0 if report.ok else 1


def _show(report: Report) -> None:
    from cloudtune.cli.talk import say
    from cloudtune.diagnosis.findings import summary
    from cloudtune.display import findings

    rows = [(one.status, one.check, one.where, one.message, one.hint) for one in report.findings]
    findings(rows, head=("status", "check", "where", "finding", "what to do"), empty="nothing was looked at")
    say(f"{'ok' if report.ok else 'not ok'}: {summary(report)}")
