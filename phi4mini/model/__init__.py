"""What the model is: its numbers, LongRoPE's rule, its arrays, and the whole of it in NumPy. No file, no kernel."""
