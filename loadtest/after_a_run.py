"""What the threads of ONNX Runtime's pool do after a run, and what that costs the next one: a bare loop of decode steps over one model with two threads, for
each setting in turn, and the processor time in the 20 ms after the last step. `AWAKE_MICROS` in services/specialist/src/runtime/mod.rs is chosen by it.

    target/peers/venv/bin/python loadtest/after_a_run.py [models/compose/1]      # half a minute, on a machine that does nothing else
"""
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

SETTINGS = {
    "asleep at once": {"session.force_spinning_stop": "1"},
    "50 us awake": {"session.intra_op.spin_duration_us": "50"},
    "100 us awake": {"session.intra_op.spin_duration_us": "100"},
    "the library's default": {},
}
GAPS = {1: 15e-6, 16: 45e-6}  # Seconds between two steps of so many rows: what an engine does there.
ROUNDS, STEPS, WARM, POSITIONS, MASK = 11, 60, 10, 256, 64


def session(folder: Path, settings: dict[str, str]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 2, 1
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def step_us(of: ort.InferenceSession, decoder: dict, rows: int) -> float:
    """Microseconds of a step's run, the median of `STEPS` less the first ones."""
    binding = of.io_binding()
    shape = (rows, decoder["num_key_value_heads"], POSITIONS, decoder["head_size"])
    given = {"input_ids": np.full((rows, 1), 7, np.int64), "attention_mask": np.ones((rows, MASK), np.int64), "position_ids": np.full((rows, 1), MASK - 1, np.int64)}
    for wanted in of.get_inputs():
        if wanted.name in given:
            binding.bind_ortvalue_input(wanted.name, ort.OrtValue.ortvalue_from_numpy(given[wanted.name]))
            continue
        cache = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float16 if "float16" in wanted.type else np.float32))
        binding.bind_ortvalue_input(wanted.name, cache)
        binding.bind_ortvalue_output(wanted.name.replace("past_key_values", "present"), cache)
    binding.bind_output("logits")
    took = []
    for _ in range(STEPS):
        until = time.perf_counter() + GAPS[rows]
        while time.perf_counter() < until:
            pass
        began = time.perf_counter()
        of.run_with_iobinding(binding)
        took.append(time.perf_counter() - began)
    return statistics.median(took[WARM:]) * 1e6


def spent_after_ms(of: ort.InferenceSession, decoder: dict) -> float:
    step_us(of, decoder, 1)
    began = time.process_time()
    time.sleep(0.02)
    return (time.process_time() - began) * 1e3


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "models/compose/1")
    decoder = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    sessions = {name: session(folder, settings) for name, settings in SETTINGS.items()}
    names, found = list(sessions), {}
    for rows in GAPS:
        took: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(ROUNDS):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                took[name].append(step_us(sessions[name], decoder, rows))
        asleep = took["asleep at once"]
        found[f"{rows} rows"] = {
            name: {"us": round(statistics.median(us), 1), "asleep_over_this": round(statistics.median(a / b for a, b in zip(asleep, us)), 3)} for name, us in took.items()
        }
    found["processor ms in 20 ms after"] = {name: round(statistics.median(spent_after_ms(of, decoder) for _ in range(9)), 2) for name, of in sessions.items()}
    print(json.dumps({"onnxruntime": ort.__version__, "model": str(folder), **found}, indent=1))


if __name__ == "__main__":
    main()
