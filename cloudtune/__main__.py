"""``python -m cloudtune``: the command line."""

from cloudtune.cli import main

main()
