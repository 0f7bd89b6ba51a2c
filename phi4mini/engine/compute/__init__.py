"""A pass of the model: the buffers it needs and the straight line over kernels."""
