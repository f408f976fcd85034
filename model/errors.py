"""Errors that a user can cause and mend. Reads and writes nothing.

The command prints a `UserError` as one line and ends with status 2; any other exception is a bug, and its traceback is shown.
"""

WRONG_USE = 2  # that exit status


class UserError(ValueError):
    """A user's mistake: a wrong option, a bad input file, a missing artifact. One sentence: what, where, the value, the remedy."""
