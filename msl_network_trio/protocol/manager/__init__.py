"""The Manager's side of the protocol, as pure state."""
