"""The clients that are compared, each of which has a ``measure``, and what they have in common."""
