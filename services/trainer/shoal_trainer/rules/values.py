"""Which value of a parameter a conversation says: of those that training rows gave it the one that was said last, and of a day or an hour in words what
calls have for it."""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from datetime import date
from typing import Callable, Iterable, Iterator

from ..score import norm

# The corpus' calls have days as dates and hours as clocks, and its conversations are held on this day.
TODAY = date(2019, 3, 1)
MONTHS = {date(2019, month, 1).strftime("%b").lower(): month for month in range(1, 13)}
_MONTH, _DAY = rf"({'|'.join(MONTHS)})[a-z]*\.?", r"(\d\d?)(?:st|nd|rd|th)?"
DAY = re.compile(rf"\b{_MONTH} (?:the )?{_DAY}\b|\b(?:the )?{_DAY} (?:of )?{_MONTH}\b|\bthe (\d\d?)(?:st|nd|rd|th)\b")
HOUR = re.compile(r"\b(\d\d?)(?::(\d\d))? ?(am|pm|in the morning|in the afternoon|in the evening|at night|o'?clock)|\b(\d\d?):(\d\d)\b")


def days(text: str) -> Iterator[str]:
    """The days of a text in small letters, as `2019-03-09`; of "the 9th" one of this month."""
    for first, of_first, of_second, second, alone in DAY.findall(text):
        day, month = int(of_first or of_second or alone), MONTHS.get(first or second, TODAY.month)
        if 1 <= day <= 31:
            yield f"{TODAY.year}-{month:02}-{day:02}"


def hours(text: str) -> Iterator[str]:
    """The times of a text in small letters, as `15:00`."""
    for hour, minute, half, of_clock, and_minute in HOUR.findall(text):
        at = int(hour or of_clock)
        late = half in ("pm", "in the afternoon", "in the evening", "at night")
        at = at + 12 if late and at < 12 else 0 if half == "am" and at == 12 else at
        if at < 24:
            yield f"{at:02}:{int(minute or and_minute or 0):02}"


SAID_SO: list[tuple[re.Pattern[str], Callable[[str], Iterator[str]]]] = [(re.compile(r"\d{4}-\d\d-\d\d"), days), (re.compile(r"\d\d:\d\d"), hours)]


class Values:
    """What was given to each parameter, (service, name), in training."""

    def __init__(self, given: Iterable[tuple[tuple[str, str], str]]) -> None:
        self._given: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for (service, name), value in given:
            for of in (service, ""):
                self._given[of, name][value] += 1
        # A parameter whose values are mostly days, or hours, is read as such.
        self._read = {slot: read for slot, of in self._given.items() for form, read in SAID_SO if 2 * sum(n for v, n in of.items() if form.fullmatch(v)) > sum(of.values())}

    def said(self, service: str, name: str, text: str) -> str | None:
        """Of the parameter's values, those of its name in any service where this one was never seen, the one that `text` says last; of those the longest."""
        slot = (service, name) if (service, name) in self._given else ("", name)
        text = norm(text)
        if slot in self._read:
            return ([None, *self._read[slot](text)])[-1]
        places = [(text.rfind(norm(v)), len(v), v) for v in self._given.get(slot, ()) if norm(v) in text and re.search(rf"(?<!\w){re.escape(norm(v))}(?!\w)", text)]
        return max(places)[2] if places else None
