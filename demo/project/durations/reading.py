"""Reads a duration such as ``1h30m`` into seconds."""

import re

SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

PART = re.compile(r"\s*(\d+)\s*([a-z])")


class DurationError(ValueError):
    """The text is not a duration."""


def parse(text):
    """Returns the seconds that ``text`` stands for.

    Units are d, h, m and s, each at most once, the larger before the smaller.
    """
    total = 0
    position = 0
    last = None
    while position < len(text.rstrip()):
        match = PART.match(text, position)
        if match is None:
            raise DurationError(f"cannot read {text!r} at character {position}")
        amount, unit = match.groups()
        if unit not in SECONDS:
            raise DurationError(f"unknown unit {unit!r} in {text!r}")
        if last is not None and SECONDS[unit] > last:
            raise DurationError(f"{unit!r} stands twice or too late in {text!r}")
        last = SECONDS[unit]
        total += int(amount) * SECONDS[unit]
        position = match.end()
    if last is None:
        raise DurationError("an empty text is no duration")
    return total
