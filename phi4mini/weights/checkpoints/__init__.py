"""Models in others' formats as one `Checkpoint`: safetensors folders, GGUF, their names and quantisations."""
