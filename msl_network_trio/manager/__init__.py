"""The Manager: what links clients with Services."""
