"""Where models come from: the hub, the package index (demo), random numbers (synthetic)."""
