"""Full-size models with random weights in the peers' formats; each file runs in its peer's environment."""
