"""The Manager: the hub that connects clients with Services."""
