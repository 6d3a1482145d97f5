"""The decoder that the benchmark measures on: 25 million random weights, Llama-shaped, exported by the genai builder in fp32.

    python decoder.py --into FOLDER        writes FOLDER/specialist.toml and FOLDER/1

What a model knows does not change its speed, so nothing has to be trained; but its texts must not end early. The row of the end token in the
(tied) embedding is zero, so its logit is 0 in every step, and the largest of four thousand others is above that: no greedy choice is ever the
end, on any engine, without a setting that one of them might lack or pay for.
"""
from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from shoal_trainer import card, model
from shoal_trainer.export import export
from shoal_trainer.prompt import Prompt

SEED = 20261126
NAME = "bench_decoder"
# 8 layers of 512 with half as many key/value heads are 24.9 million parameters: the middle of what the mesh's specialists have.
SIZE = model.Size(hidden=512, layers=8, vocabulary=4096, context=1280)
# Wide, so that logits differ enough for a greedy choice never to hang on the order in which a kernel adds up.
SPREAD = 0.1
# The text as it is: what is measured must not depend on what a template puts around it.
TEMPLATE = "{{ messages[-1].content }}"


def weights(prompt: Prompt) -> torch.nn.Module:
    """The same on every machine."""
    torch.manual_seed(SEED)
    network = model.fresh(SIZE, prompt)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, SPREAD)
        network.get_input_embeddings().weight[prompt.end] = 0.0
    return network


def build(tokenizer: Path, root: Path) -> None:
    """Writes the folder. The vocabulary is a shipped specialist's: a real one of four thousand pieces."""
    prompt = Prompt(Prompt.load(tokenizer).tokenizer, TEMPLATE)
    here = root / "1"
    with tempfile.TemporaryDirectory() as scratch:
        model.save(weights(prompt), prompt, Path(scratch))
        export(Path(scratch), here, [])
    about = {
        "name": NAME,
        "version": 1,
        "kind": "generate",
        "description": "random weights, for the benchmark",
        "licence": "Apache-2.0",
        "limits": {"context_tokens": SIZE.context, "max_new_tokens": SIZE.context - 1},
        "price": card.PRICE,
        "training": {"seed": SEED},
    }
    card.write(root, NAME, ["echo"], about)


def main() -> None:
    repository = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, required=True, help="the specialist's folder")
    parser.add_argument("--tokenizer", type=Path, default=repository / "models/compose/1", help="a version whose tokenizer.json is taken")
    args = parser.parse_args()
    build(args.tokenizer, args.into)


if __name__ == "__main__":
    main()
