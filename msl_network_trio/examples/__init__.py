"""Example Services; each runs as ``python -m msl_network_trio.examples.NAME``.

They have no ``from __future__ import annotations``, which would put quotes into the signatures that clients
see.
"""
