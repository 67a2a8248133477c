"""The one exception that library code raises for anything a user can mend, and how to show a stranger's text."""


def printable(text: str) -> str:
    """The text on one line, whatever it holds: control characters become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class InputError(ValueError):
    """Input that cannot be used. The message is one line: it names the file, line or record and what is wrong."""


class LimitError(InputError):
    """Input that asks for more memory than a real file of its kind needs."""


class MissingExtra(InputError):
    """Input that only a library from an optional extra of setup.py can read; the message names the extra."""
