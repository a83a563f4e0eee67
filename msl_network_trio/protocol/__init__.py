"""The MSL-Network protocol as pure state: bytes in, events out; requests in, bytes out.

It owns the state of connections and the format of lines. It does no I/O, waits for nothing, and depends on
neither threads nor Trio; its callers hold the locks that its modules name.
"""
