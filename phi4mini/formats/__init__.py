"""How a matrix is stored: formats as tables (layout), bytes (matrix), rounding, GGUF's blocks. No file, no kernel."""
