"""The APIs: one conversation, whichever way it was asked, and an answer in the same way."""
