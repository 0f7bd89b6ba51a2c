"""`python -m phi4mini`: the same commands as `phi4mini`."""

from __future__ import annotations

import sys

from phi4mini.cli import main

if __name__ == "__main__":
    sys.exit(main())
