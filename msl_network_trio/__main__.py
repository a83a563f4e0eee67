# PYTHON_ARGCOMPLETE_OK
"""Entry point of the command: ``python -m msl_network_trio`` or ``msl-network-trio``."""

from __future__ import annotations

import sys

from msl_network_trio.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
