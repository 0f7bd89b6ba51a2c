"""Threads: programs of kernels, the pool that runs them, how many of its threads take part."""
