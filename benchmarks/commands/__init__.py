"""What ``python -m benchmarks`` can do; every module has a ``main``."""
