"""How a peer is spoken to: one JSON object a line, requests on standard input and answers on standard output.

The first line out is {"ready": SETTINGS}, once the model is loaded: loading is never measured. After it each request {"job": NAME, ...} gets one
answer, {"seconds": S, ...} or {"error": TEXT}. The end of standard input is the end of the peer.
"""
from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable

Job = Callable[[dict[str, Any]], dict[str, Any]]


def channel() -> Callable[[dict[str, Any]], None]:
    """What writes answers. The libraries print too, so their standard output becomes standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    return say


def serve(say: Callable[[dict[str, Any]], None], settings: dict[str, Any], jobs: dict[str, Job]) -> None:
    """Answers until standard input ends."""
    say({"ready": settings})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say(jobs[request["job"]](request))
        except Exception as error:  # noqa: BLE001 - whatever it is, the benchmark shall say it
            say({"error": f"{type(error).__name__}: {error}"})
