"""The transformer, and its weights in Hugging Face files."""
