"""The one kind of error that a user can mend."""


class InputError(ValueError):
    """A setting, a file or an argument of the user's that cannot be used.

    Its message is one line: what was given, what was expected, and what to do. Commands print it and exit with code 2;
    any other exception is a bug and keeps its traceback.
    """
