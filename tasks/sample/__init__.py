"""The sample web: a small fictional world, the pages that tell of it, and the conversations about it."""
