"""Conversations, preferences, prompts and questions as artifacts."""
