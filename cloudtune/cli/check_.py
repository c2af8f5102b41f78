"""``cloudtune check``: whether a place will take a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli import options

if TYPE_CHECKING:
    from cloudtune.weights.checks.findings import Report


@click.command("check")
@click.argument("model")
@click.option(
    "--for",
    "for_",
    type=click.Choice(["bedrock", "vllm", "sagemaker", "oci"]),
    help="Where it is to go; without it, only what holds everywhere is looked at.",
)
@click.option("--fast", is_flag=True, help="Leave out what reads every byte: the search for NaN and infinities.")
@click.option("--load", is_flag=True, help="Build the model without memory by transformers and compare.")
@click.option("--generate", is_flag=True, help="Load the model on this machine's CPU and let it say a few words.")
@options.output("text", "json", "yaml")
def command(model: str, for_: str | None, fast: bool, load: bool, generate: bool, output: str) -> int:
    """Look for everything that keeps a model, or a LoRA adapter, from being served.

    MODEL is a folder, a URI or a registered NAME[:VERSION]; of one in a bucket only small files and ranges are fetched.
    Ends with 1 if there are errors; warnings and notes alone are fine.
    """
    from cloudtune import verbs
    from cloudtune.cli.meter import Meter

    with Meter("reading") as meter:
        report = verbs.check(model, for_=for_, fast=fast, load=load, generate=generate, progress=meter)
    if output == "text":
        _show(report)
    else:
        options.emit(report.to_dict(), output)
    return 0 if report.ok else 1


def _show(report: Report) -> None:
    from cloudtune.cli.talk import say
    from cloudtune.display import findings

    types = ", ".join(f"{_size(size)} {name}" for name, size in report.dtypes.items())
    kind = report.architecture or report.kind
    say(f"{kind}: {report.parameters:,} parameters" + (f", {types}" if types else ""))
    rows = [(one.severity, one.rule, one.where, one.message, one.hint) for one in report.findings]
    findings(rows, head=("severity", "rule", "where", "finding", "what to do"), empty="nothing was found")
    counts = {severity: len(report.of(severity)) for severity in ("error", "warning", "note")}
    said = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count)
    place = f" for {report.target}" if report.target else ""
    say(f"{'ok' if report.ok else 'not ok'}{place}" + (f": {said}" if said else ""))


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
