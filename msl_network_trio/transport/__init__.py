"""Transports: streams of bytes to a peer by TCP, TLS, WebSocket and in memory, and how to listen for them."""
