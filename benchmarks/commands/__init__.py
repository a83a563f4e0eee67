"""The commands of ``python -m benchmarks``, each module with a function ``main``."""
