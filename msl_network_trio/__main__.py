# PYTHON_ARGCOMPLETE_OK
"""The command: ``python -m msl_network_trio``, and ``msl-network-trio`` where the package is installed."""

from __future__ import annotations

import sys

from msl_network_trio.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
