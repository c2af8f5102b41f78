"""``python -m cloudtune``, and the command ``cloudtune``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded is one line, too."""
    try:
        from cloudtune.cli import main as run  # noqa: PLC0415 - so that loading it can be interrupted
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
