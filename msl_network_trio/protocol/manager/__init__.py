"""The Manager's protocol, as pure state: no I/O, no threads."""
