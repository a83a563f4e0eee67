"""Connection set-up, shared by client, Service, Manager and gateway: address, trust, prompts, handshake."""
