"""A plan's trace, read back from a tracing UI: one trace id, right parents, no orphan."""
import json
import time

from conftest import Mesh, Phoenix
from phoenix.client import Client

GOAL = "Play some jazz by Miles Davis and then book a table for two at a bistro in Oslo"


def spans_of(phoenix: Phoenix, trace: str) -> list[dict]:
    """Spans of one trace, as Phoenix stored them."""
    found = Client(base_url=phoenix.http).spans.get_spans(project_identifier="default", limit=1000)
    return [dict(s) for s in found if s["context"]["trace_id"] == trace]


def faults(spans: list[dict]) -> list[str]:
    """What is wrong with the tree."""
    ids = [s["context"]["span_id"] for s in spans]
    roots = [s["name"] for s in spans if not s.get("parent_id")]
    said = [f"orphan {s['name']}" for s in spans if s.get("parent_id") and s["parent_id"] not in ids]
    return said + ([f"roots {roots}"] if len(roots) != 1 else []) + (["twice"] if len(set(ids)) != len(ids) else [])


def test_the_trace_of_a_plan_is_one_tree_from_the_client_to_the_models_own_run(mesh: Mesh, phoenix: Phoenix) -> None:
    done = mesh.shoal("run", "--json", GOAL)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    trace = next(e["trace_id"] for e in events if e.get("event") == "accepted")
    until = time.monotonic() + 60
    while True:
        spans = spans_of(phoenix, trace)
        names = {s["name"] for s in spans}
        if (not faults(spans) and "prefill" in names) or time.monotonic() > until:
            break
        time.sleep(0.5)
    assert not faults(spans), (faults(spans), sorted(names))
    kinds = {s["span_kind"] for s in spans}
    assert "prefill" in names and {"AGENT", "LLM"} <= kinds, (names, kinds)
