"""How a matrix is stored: formats as a table, parts of a matrix, rounding, GGUF's blocks. Knows no file, no kernel."""
