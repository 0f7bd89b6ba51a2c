"""Guessed tokens that a pass verifies: they change the speed and never the answer."""
