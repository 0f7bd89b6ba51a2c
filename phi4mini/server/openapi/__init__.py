"""The OpenAPI document: bodies, answers and events as schemas."""
