"""From logits to the next id: parameters, the chain of pure functions, constraints."""
