"""The errors that a user meets, one line each."""

import difflib
from collections.abc import Iterable

MOST_NAMED = 30
"""How many of the known names are listed where none is near."""


class UserError(ValueError):
    """Something the user must change: one line that says what is wrong, what was expected and what to do.

    The command line prints the message and exits with code 2; library users see an ordinary `ValueError`.
    """


class CheckFailed(Exception):
    """A check failed (a conversion that computes something else, a number that was not reproduced): exit code 1."""


def printable(text: str) -> str:
    """`text` on one line for a terminal: texts out of files may hold line ends, and codes that command a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(error: Exception) -> str:
    """The text of an error that another library raised, on one line."""
    return " ".join(str(error).split())


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a `name` that is not among the `known` ones of this `kind`, with the nearest names."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    more = f", … ({len(names)} in all)" if len(names) > MOST_NAMED else ""
    listed = ", ".join(names[:MOST_NAMED])
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {listed}{more}"
    return UserError(f"unknown {kind} {name!r}; {hint}")
