"""Client processes, each module with a function ``measure``, and their common parts."""
