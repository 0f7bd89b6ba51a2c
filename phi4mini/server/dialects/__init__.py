"""OpenAI's, Anthropic's and Ollama's APIs: each turns its bodies into a `Conversation` and writes the answers."""
