"""The command line with an idle deadline of one second, so that a test sees a kept connection end:
`python -m tests.server.resting serve`.
"""

from __future__ import annotations

import sys

from phi4mini import cli
from phi4mini.server.settings import Settings

if __name__ == "__main__":
    Settings.__init__.__kwdefaults__["idle_deadline"] = 1
    sys.exit(cli.main())
