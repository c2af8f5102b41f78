"""``python -m cloudtune.node`` is the same command line as the zipapp's."""

from cloudtune.node.cli import main

raise SystemExit(main())
