"""Decoding with a KV cache, chat, and scoring of answers."""
