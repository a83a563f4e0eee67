"""Pipes for bytes to a peer: TCP, TLS, memory; and whom to trust."""
