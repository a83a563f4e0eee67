"""The MSL-Network protocol as pure state: bytes in, events out; requests in, bytes out.

Nothing in this package waits, opens a socket or knows Trio.
"""
