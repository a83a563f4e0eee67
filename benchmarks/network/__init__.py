"""Whole networks: our Manager and Service against those of msl-network 1.0.0."""
