"""The client: session, connection, and the objects that applications use."""
