"""Measurements, run by hand: ``python -m benchmarks.overhead``, ``python -m benchmarks.scale``."""
