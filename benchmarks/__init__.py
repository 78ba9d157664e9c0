"""Measurements: `python -m benchmarks` prints one table."""
