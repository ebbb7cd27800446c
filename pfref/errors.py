"""The one exception for what a user can mend: its message says what is wrong and what
to do, in one line.
"""


class UserError(ValueError):
    """Bad input: the command line prints the message and exits with 2."""
