"""Tokens to a base model, trained here or imported."""
