"""Benchmarks: our client against that of msl-network 1.0.0, in the same run (`python -m benchmarks`)."""
