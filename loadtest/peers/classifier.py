"""MLServer as a peer on the wire: a classifier's ONNX file behind the Open Inference Protocol.

    python classifier.py --model FOLDER/1 --threads N

MLServer brings no runtime for ONNX, so this is one: the folder's tokenizer and ONNX Runtime with the threads that the specialist has. At its best:
inference in the server's own process (a pool of workers costs a pickle and a queue each way, and a model this small is done before), no access log
and no metrics endpoint, and adaptive batching or none, whichever the benchmark finds to be faster. What it answers is what the specialist answers: the likeliest label of each text.
"""
from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
import threading
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime as ort
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import StringCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse
from tokenizers import Tokenizer

import lines

NAME = "bench"
BATCH = 16  # Requests in one run, as many as are open at once.


class OnnxClassifier(MLModel):
    """Text in, the likeliest label out."""

    async def load(self) -> bool:
        folder, extra = Path(self.settings.parameters.uri), self.settings.parameters.extra
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = extra["threads"], 1
        self.session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        card = tomllib.loads((folder / "card.toml").read_text())
        self.labels = card["classify"]["labels"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(card["limits"]["context_tokens"])
        self.tokenizer.enable_padding()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        read = self.tokenizer.encode_batch(StringCodec.decode_input(payload.inputs[0]))
        feeds = {
            "input_ids": np.array([text.ids for text in read], dtype=np.int64),
            "attention_mask": np.array([text.attention_mask for text in read], dtype=np.int64),
        }
        logits = self.session.run(["logits"], feeds)[0]
        said = [self.labels[i] for i in logits.argmax(axis=1)]
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("text_output", said)])


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def end_with_parent(server: MLServer, loop: asyncio.AbstractEventLoop) -> None:
    """Stops the server when standard input ends."""
    sys.stdin.read()
    asyncio.run_coroutine_threadsafe(server.stop(), loop)


async def run(args: argparse.Namespace) -> None:
    say = lines.channel()
    http, grpc, metrics = free_ports(3)
    settings = Settings(
        host="127.0.0.1", http_port=http, grpc_port=grpc, metrics_port=metrics, parallel_workers=args.workers,
        debug=False, metrics_endpoint=None, use_structured_logging=False,
    )
    batching = {"max_batch_size": args.batch, "max_batch_time": args.wait} if args.batch > 1 else {}
    model = ModelSettings(name=NAME, implementation=OnnxClassifier, parameters=ModelParameters(uri=str(args.model), extra={"threads": args.threads}), **batching)
    server = MLServer(settings)
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("mlserver", "mlserver.grpc", "uvicorn", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    threading.Thread(target=end_with_parent, args=(server, asyncio.get_running_loop()), daemon=True).start()
    said = {"mlserver": metadata.version("mlserver"), "onnxruntime": ort.__version__, "intra_op_threads": args.threads}
    said |= {"parallel_workers": args.workers, "max_batch_size": args.batch, "max_batch_seconds": args.wait if args.batch > 1 else 0}
    # Not yet listening: the benchmark asks for ModelReady until it is.
    say({"ready": {**said, "model": NAME, "grpc": f"127.0.0.1:{grpc}"}})
    await server.start([model])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workers", type=int, default=0, help="processes for inference; 0: the server's own")
    parser.add_argument("--batch", type=int, default=BATCH, help="requests in one run; 1: no batching")
    parser.add_argument("--wait", type=float, default=0.0005, help="seconds that a batch waits for more")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
