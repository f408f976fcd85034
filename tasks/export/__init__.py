"""A policy to the files that inference engines load."""
