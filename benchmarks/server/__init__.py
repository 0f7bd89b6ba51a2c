"""Clients of a server under load: what `python -m benchmarks.serve` and `python -m benchmarks.soak` are made of."""
