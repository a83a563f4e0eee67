"""A soak test: mixed load on a Manager for a given time, with ``python -m tests.soak SECONDS`` or ``nox -s soak``."""
