"""The stage index: full-text search over what a run read."""
