"""The embedded demo world: a small fictional web, its pages, and conversations about it."""
