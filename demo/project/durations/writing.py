"""Writes seconds as a duration such as ``1h30m``."""

from .reading import SECONDS


def describe(seconds):
    """Returns the shortest text that :func:`durations.parse` reads back as ``seconds``."""
    if seconds < 0:
        raise ValueError("a duration is not negative")
    parts = []
    for unit, size in SECONDS.items():
        amount, seconds = divmod(seconds, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts) or "0s"
