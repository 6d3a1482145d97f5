"""Numbers of the command line: what would end in a division by zero hours later is refused by argparse, with the flag."""
from __future__ import annotations

import argparse
import math


def count(said: str) -> int:
    """0, which mostly means all or by default, or more."""
    return _int(said, 0)


def several(said: str) -> int:
    """At least 1."""
    return _int(said, 1)


def positive(said: str) -> float:
    """Above 0, and finite."""
    if (value := amount(said)) == 0:
        raise argparse.ArgumentTypeError(f"`{said}` is no number above 0")
    return value


def share(said: str) -> float:
    """From 0 to 1."""
    if (value := amount(said)) > 1:
        raise argparse.ArgumentTypeError(f"`{said}` is no share from 0 to 1")
    return value


def amount(said: str) -> float:
    """0 or more, and finite."""
    try:
        value = float(said)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"`{said}` is no number of at least 0")
    return value


def _int(said: str, least: int) -> int:
    try:
        value = int(said)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"`{said}` is no whole number of at least {least}")
    return value
