"""The eight rows, a file for each thing that is measured; every `run` returns the lines of its row or rows."""
