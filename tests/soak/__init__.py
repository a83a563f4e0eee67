"""Mixed load on a Manager for as long as one likes: ``python -m tests.soak SECONDS``, or ``nox -s soak``."""
