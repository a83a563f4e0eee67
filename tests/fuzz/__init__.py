"""A coverage-guided fuzzer for the Manager's protocol: ``python -m tests.fuzz SECONDS``."""
