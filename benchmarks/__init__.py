"""Benchmarks against msl-network 1.0.0 and other packages in the same run (`python -m benchmarks`)."""
