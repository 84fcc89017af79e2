"""The base class of errors that a user can mend."""


class UserError(Exception):
    """What the user can mend: the message says what was wrong and the way out, in one or two lines.

    Programs print it without a traceback.
    """
