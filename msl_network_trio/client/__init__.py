"""The client: a nursery around a connection, and the objects that applications use."""
