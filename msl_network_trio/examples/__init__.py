"""Services to try things out with; each runs as ``python -m msl_network_trio.examples.NAME``.

They do without ``from __future__ import annotations``: the signatures that clients see are better to read so.
"""
