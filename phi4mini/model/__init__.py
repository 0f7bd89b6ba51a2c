"""What the model is: its numbers, LongRoPE's rule, its arrays, adapters, and the whole of it in NumPy."""
