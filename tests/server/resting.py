"""The command line with kept connections of one second: `python -m tests.server.resting serve`, to see one end."""

from __future__ import annotations

import sys

from phi4mini import cli
from phi4mini.server.settings import Settings

if __name__ == "__main__":
    Settings.__init__.__kwdefaults__["idle_deadline"] = 1
    sys.exit(cli.main())
