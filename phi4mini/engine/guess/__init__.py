"""Guessing the next tokens for a pass to verify (speculative decoding): changes the speed, never the answer."""
