"""Serving models over HTTP: an engine with continuous batching, and OpenAI's API around it."""
