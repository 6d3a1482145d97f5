#!/usr/bin/env python3
"""Where the time goes that gRPC adds to a first token: medians between the points that the kernel sees, over the requests of one measurement.

    python3 loadtest/first_token.py [--binaries target/dist]

Needs Linux's `perf` with leave to watch the whole machine (root), and the decoder that loadtest/README.md makes. It runs
`shoal-loadtest specialist --only first_token_added_us` and watches five seconds of it; watching costs some microseconds a point.
"""
import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

EVENTS = ",".join(
    [f"sched:sched_{name}" for name in ("switch", "waking")]
    + [f"syscalls:sys_{name}" for name in ("exit_recvfrom", "enter_writev", "exit_epoll_wait")]
)

# Until the specialist has loaded its model, and how long is watched then.
LOADING_S, WATCHED_S = 3.0, 5

CALLER, CARRIER, ENGINE = "shoal-loadtest", "tokio-rt-worker", "engine"

LINE = re.compile(r"\s*(?P<thread>.+?)\s+(?P<id>\d+)\s+\[\d+\]\s+(?P<at>\d+\.\d+):\s+(?P<what>\S+):\s*(?P<rest>.*)")


class Event(NamedTuple):
    at: float
    thread: str
    id: int
    what: str
    rest: str


# From each point to the next, in the order in which a request passes them.
STEPS = {
    "carrier awake": "the caller's write through TCP, and the specialist's thread awake",
    "request read": "its runtime until it reads the socket",
    "engine woken": "HTTP/2, routing, span, tokens, queue",
    "first token": "the engine: prefill and sampling",
    "carrier awake again": "the specialist's thread awake",
    "answer written": "answer and headers through gRPC and HTTP/2",
    "caller woken": "TCP",
    "caller awake": "the caller's thread awake",
    "answer read": "its runtime until it reads the socket",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binaries", type=Path, default=Path("target/dist"), help="where shoal and shoal-loadtest are")
    loadtest = parser.parse_args().binaries / "shoal-loadtest"
    if not shutil.which("perf"):
        sys.exit("perf is not here: install Debian's linux-perf")
    if not loadtest.is_file():
        sys.exit(f"{loadtest} is not there: cargo build --profile dist --locked")
    requests = list(passed(watch(loadtest)))
    if not requests:
        sys.exit("no request was seen from end to end: is perf allowed to watch the whole machine?")
    print(f"{len(requests)} requests, medians in microseconds")
    for step, words in STEPS.items():
        print(f"{statistics.median(request[step] for request in requests):8.0f}  {words}")


def watch(loadtest: Path) -> list[Event]:
    """What perf saw of one measurement."""
    with tempfile.TemporaryDirectory() as scratch:
        seen = f"{scratch}/perf.data"
        measured = [loadtest, "specialist", "--only", "first_token_added_us", "--rounds", "20"]
        with subprocess.Popen(measured, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            time.sleep(LOADING_S)
            recorder = ["perf", "record", "-q", "-a", "-m", "32M", "-o", seen, "-e", EVENTS, "--", "sleep", str(WATCHED_S)]
            subprocess.run(recorder, check=True)
            running.terminate()
        listed = subprocess.run(["perf", "script", "--ns", "-i", seen], check=True, capture_output=True, text=True).stdout
    found = (LINE.match(line) for line in listed.splitlines())
    return [Event(float(m["at"]) * 1e6, m["thread"], int(m["id"]), m["what"], m["rest"]) for m in found if m]


def passed(events: list[Event]):
    """Microseconds of each step, of every request that was seen whole."""
    writers = Counter(e.id for e in events if e.thread == CARRIER and "enter_writev" in e.what)
    if not writers:
        return
    carrier = writers.most_common(1)[0][0]

    def wakes(event: Event, whom: str) -> bool:
        return event.what == "sched:sched_waking" and whom in event.rest

    forward = {
        "carrier awake": lambda e: e.id == carrier and "exit_epoll" in e.what,
        "request read": lambda e: e.id == carrier and "exit_recvfrom" in e.what,
        "engine woken": lambda e: e.id == carrier and wakes(e, f"comm={ENGINE} "),
        "first token": lambda e: e.thread == ENGINE and wakes(e, f"pid={carrier} "),
        "carrier awake again": lambda e: e.id == carrier and "exit_epoll" in e.what,
        "answer written": lambda e: e.id == carrier and "enter_writev" in e.what,
        "caller woken": lambda e: wakes(e, f"comm={CALLER} "),
        "caller awake": lambda e: e.thread == CALLER and "exit_epoll" in e.what,
        "answer read": lambda e: e.thread == CALLER and "exit_recvfrom" in e.what,
    }
    last_write = None
    for i, event in enumerate(events):
        if event.thread == CALLER and "enter_writev" in event.what:
            last_write = i
        if last_write is None or not forward["engine woken"](event):
            continue
        at, took, before = last_write, {}, events[last_write].at
        for step, reached in forward.items():
            at = next((k for k in range(at + 1, len(events)) if reached(events[k])), None)
            if at is None:
                return
            took[step], before = events[at].at - before, events[at].at
        last_write = None
        yield took


if __name__ == "__main__":
    main()
