"""Finds and redacts personal data."""
