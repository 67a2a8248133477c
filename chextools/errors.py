"""The one exception that library code raises for anything a user can mend, and how to show a stranger's text."""

MAX_LETTERS = 2000  # of a message: two paths of any length that a file system has, less what is in their middle
MAX_QUOTED = 60


def printable(text: str) -> str:
    """The text on one line, whatever it holds: control characters become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(message: str) -> str:
    """A message to be shown: `printable`, and cut in its middle where a stranger's text made it endless."""
    if len(message) > MAX_LETTERS:
        message = f"{message[: MAX_LETTERS // 2]} ... {message[-MAX_LETTERS // 2 :]}"
    return printable(message)


def encoded(text: str) -> bytes:
    """Text as it is written, whatever the locale: UTF-8, and the bytes of a file's name as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def quoted(value: object) -> str:
    """A value to be quoted in a message, such as `'Edmea'` or `[1, 2]`: as Python writes it, cut where it is long.

    No more is written out than is shown, however large the value.
    """
    if isinstance(value, (str, bytes)):
        cut = len(value) > MAX_QUOTED
        return f"{value[:MAX_QUOTED]!r}{'...' * cut}"
    if isinstance(value, int) and abs(value) >= 10**MAX_QUOTED:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, dict):
        return "an object" if value else "{}"
    if isinstance(value, (list, tuple)):
        some = ", ".join("[...]" if isinstance(v, (list, tuple)) and v else quoted(v) for v in value[:4])
        return f"[{some}{', ...' * (len(value) > 4)}]" if len(some) <= MAX_QUOTED else f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."


class InputError(ValueError):
    """Input that cannot be used. The message is one line: it names the file, line or record and what is wrong."""


class LimitError(InputError):
    """Input that asks for more memory than a real file of its kind needs."""


class MissingExtra(InputError):
    """Input that only a library from an optional extra of setup.py can read; the message names the extra."""
