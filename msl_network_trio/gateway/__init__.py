"""The gateway: WebSocket in front of a Manager that has none."""
