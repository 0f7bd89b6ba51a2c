"""From a connection to a checked body and back: guard, limits, errors, endpoints."""
