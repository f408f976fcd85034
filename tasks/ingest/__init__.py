"""Web archive bytes to documents."""
