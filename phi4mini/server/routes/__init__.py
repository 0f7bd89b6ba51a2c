"""Routes that belong to no dialect: status, and text without the model."""
