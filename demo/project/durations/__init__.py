"""Durations as people write them."""

from .reading import DurationError, parse
from .writing import describe

__all__ = ["DurationError", "describe", "parse"]
