"""The command line: one file a verb, each of which parses, makes one call and prints.

The verbs are imported only when they are called, so that ``cloudtune --help`` costs little more than click.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Any

import click

from cloudtune.cli.talk import nobody_reads, say, visible

#: Verb, module, one line of help. Grouped as the help shows them.
VERBS: dict[str, dict[str, str]] = {
    "Jobs": {
        "run": "Plan, submit and watch a job or a pipeline.",
        "rehearse": "Run a job against its cloud's stand-in on this machine.",
        "watch": "Show every replica's log until the run has ended.",
        "logs": "Print what a run has logged so far.",
        "list": "List runs, models or deployments.",
        "status": "Show the state of a run.",
        "cancel": "End a run: every process of every node.",
        "outputs": "List or download what a run has left.",
        "delete": "Forget a run, a model or a deployment.",
        "diff": "Compare two places for a job, or two runs.",
        "estimate": "Say what memory a training needs, and where it fits.",
    },
    "Models": {
        "merge": "Merge LoRA adapters into their base model.",
        "consolidate": "Make one model of a sharded checkpoint.",
        "check": "Look for what keeps a model from being served.",
        "register": "File a model under a name and a version.",
        "deploy": "Serve a model.",
        "invoke": "Ask a served model.",
    },
    "Files": {
        "build": "Build an image and push it to a registry.",
        "doctor": "Look for what keeps a job from running.",
        "init": "Write a ready-made job file into this folder.",
        "schema": "Print the JSON Schema of job files.",
    },
}


class Verbs(click.Group):
    """A group whose verbs are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help."""
        return [verb for verbs in VERBS.values() for verb in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"cloudtune.cli.{cmd_name}_").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Call a verb; an interrupted one says what is left, and that the reader went away (`| head`) is no error."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            # here, because click itself would say nothing
            from cloudtune.cli.interrupted import told

            say(f"\n{told(ctx.invoked_subcommand, error)}")
            return 130
        except BrokenPipeError:
            # here, because click itself would end with 1
            nobody_reads(sys.stdout)
            return 0

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a verb; an unknown one is answered with the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            if near:
                raise click.UsageError(f"No such command {args[0]!r}. Did you mean {near[0]!r}?", ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs from the table, without importing them."""
        for title, verbs in VERBS.items():
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(package_name="cloudtune", prog_name="cloudtune")
@click.option("--debug", is_flag=True, envvar="CLOUDTUNE_DEBUG", help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Describe a fine-tuning job once; run it on OCI Data Science, SageMaker, EKS or this machine."""


def main() -> None:
    """Run the command line and end with the contract's exit codes."""
    # as an exception, a polite end lets verbs take back what they have begun
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except KeyboardInterrupt:
        say("\ninterrupted")
        code = 130
    except Exception as error:  # noqa: BLE001 - the last line of defence: nobody should see a traceback unasked
        code = _told(error)
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: Exception) -> int:
    """Say what went wrong to somebody who did not write this program; return the exit code."""
    from cloudtune.errors import CloudtuneError
    from cloudtune.uri import shown

    if "--debug" in sys.argv or os.environ.get("CLOUDTUNE_DEBUG"):
        raise error
    if isinstance(error, CloudtuneError):
        click.echo(f"error: {visible(str(error))}", err=True)
        return error.exit_code
    click.echo(f"error: {type(error).__name__}: {visible(shown(str(error)))}", err=True)
    click.echo("  hint: this is a fault of cloudtune; --debug shows where, please report it", err=True)
    return 1
