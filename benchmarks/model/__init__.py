"""The model's speed against the peers' and what it costs in fidelity: what `python -m benchmarks.run` measures."""
