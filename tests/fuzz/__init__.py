"""Bytes for the Manager's protocol, guided by what they reach: ``python -m tests.fuzz SECONDS``."""
