"""phi4mini/server: docstring to be written."""
