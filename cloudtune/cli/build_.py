"""``cloudtune build``: an image of a folder, in a registry."""

from __future__ import annotations

import click

from cloudtune.cli import options
from cloudtune.cli.talk import say


@click.command("build")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option("--push", metavar="REPO", help="Push it there: HOST/PATH[:TAG]; default tag: of what DIR holds.")
@click.option("--context", type=click.Path(exists=True, file_okay=False), help="Files for COPY; default: DIR.")
@click.option("--build-arg", multiple=True, metavar="NAME=VALUE", help="An ARG of the Dockerfile; repeatable.")
@click.option("--platform", default="linux/amd64", show_default=True, help="Where the image is to run.")
@click.option("--tool", type=click.Choice(["docker", "podman"]), help="What builds; default: what there is.")
@click.option("--dry-run", "--dryrun", is_flag=True, help="Show the commands, and run none.")
@options.output("text", "json")
def command(
    directory: str,
    push: str | None,
    context: str | None,
    build_arg: tuple[str, ...],
    platform: str,
    tool: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """Build the image of a folder with a Dockerfile, by Docker or Podman, and push it to a registry.

    Sign in before: ``docker login``. The image's name is printed.
    """
    import shlex

    from cloudtune import verbs

    built = verbs.build(
        directory,
        push=push,
        context=context,
        build_arg=build_arg,
        platform=platform,
        tool=tool,
        dry_run=dry_run,
        progress=say,
    )
    if output == "json":
        import attrs

        options.emit(attrs.asdict(built), "json")
        return
    if dry_run:
        for one in built.commands:
            click.echo(shlex.join(one))
        return
    if built.digest:
        say(f"its digest is {built.digest}")
    click.echo(built.image)
