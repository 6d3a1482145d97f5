"""onnxruntime-genai as a peer: its `Generator` with one sequence and with a static batch, and its `Engine`.

    python genai.py --model FOLDER/1 --threads N

At its best: its intra-op threads are told (its default is every core, and on two cores it is slower with it), KV buffers are as long as the answers
need, and what can be made before the clock starts (a `Generator` with its buffers, an `Engine`) is made before. `Engine` is told to take 16
requests at once. Its "dynamic batching" needs a graph with PagedAttention, which the builder writes for CUDA and WebGPU alone: on a CPU the Engine
has its static scheduler, which takes up to four waiting requests when the last of those before has ended. The width that it really had is in the answer.
"""
from __future__ import annotations

import argparse
import json
import time
from importlib import metadata
from typing import Any

import numpy as np
import onnxruntime_genai as og

import lines

ROWS = 16


def open_model(folder: str, threads: int) -> og.Model:
    """The folder as it is, on the CPU."""
    config = og.Config(folder)
    config.clear_providers()
    session = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}, "engine": {"static_batching": {"max_batch_size": ROWS}}}))
    return og.Model(config)


def up_to(tokens: list[int], length: int, ends: list[int]) -> list[int]:
    """What a row answered: at most `length` tokens, none from the end token on."""
    tokens = tokens[:length]
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))]


class Peer:
    """A loaded model."""

    def __init__(self, folder: str, threads: int) -> None:
        self.model = open_model(folder, threads)
        self.ends = [int(i) for i in og.Tokenizer(self.model).eos_token_ids]
        self.engine = og.Engine(self.model)

    def generator(self, request: dict[str, Any]) -> dict[str, Any]:
        """All prompts as one batch, until the longest answer is there: a static batch, or one sequence. Prompts are of one length."""
        prompts, lengths = np.array(request["prompts"], dtype=np.int32), request["lengths"]
        rows, width = prompts.shape
        params = og.GeneratorParams(self.model)
        params.set_search_options(do_sample=False, batch_size=rows, max_length=width + max(lengths))
        generator = og.Generator(self.model, params)
        started = time.perf_counter()
        generator.append_tokens(prompts if rows > 1 else prompts[0])
        while not generator.is_done():
            generator.generate_next_token()
        seconds = time.perf_counter() - started
        said = [generator.get_sequence(row)[width:].tolist() for row in range(rows)]
        return {"seconds": seconds, "tokens": [up_to(tokens, length, self.ends) for tokens, length in zip(said, lengths)]}

    def continuous(self, request: dict[str, Any]) -> dict[str, Any]:
        """All prompts as requests of the Engine, each with its own length."""
        prompts = [np.array(prompt, dtype=np.int32) for prompt in request["prompts"]]
        events = self.engine.create_event_buffer(4 * ROWS)
        started = time.perf_counter()
        open_requests, rows, steps, width = [], {}, 0, 0
        for row, (prompt, length) in enumerate(zip(prompts, request["lengths"])):
            options = og.RequestOptions()
            options.set_max_session_tokens(len(prompt) + length)
            asked = self.engine.create_request(options=options)
            turn = og.TurnOptions(asked)
            turn.set_do_sample(False)
            turn.set_max_generated_tokens(length)
            rows[asked] = row
            open_requests.append(asked)
            asked.begin_turn(prompt, turn)
        said: list[list[int]] = [[] for _ in prompts]
        while self.engine.has_pending_requests():
            happened = self.engine.run(events)
            steps += 1
            width = max(width, len(happened))
            for event in happened:
                if event.token is not None and event.flags & og.EngineEventFlags.TOKEN:
                    said[rows[event.request]].append(int(event.token))
        seconds = time.perf_counter() - started
        for asked in open_requests:
            asked.close()
        cut = [up_to(tokens, length, self.ends) for tokens, length in zip(said, request["lengths"])]
        return {"seconds": seconds, "tokens": cut, "steps": steps, "width": width}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    say = lines.channel()
    peer = Peer(args.model, args.threads)
    settings = {
        "onnxruntime-genai": og.__version__,
        "onnxruntime": metadata.version("onnxruntime"),
        "intra_op_threads": args.threads,
        "engine_max_batch_size": peer.engine.get_capabilities().configured_max_batch_size,
    }
    lines.serve(say, settings, {"generator": peer.generator, "engine": peer.continuous})


if __name__ == "__main__":
    main()
