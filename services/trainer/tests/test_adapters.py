"""LoRA on an encoder: only adapters and heads learn, and merged they answer as before, in a net of the shape that it had."""
import json
from pathlib import Path

import torch
from conftest import learned, rows

from shoal_trainer import batches, training
from shoal_trainer.__main__ import parser
from shoal_trainer.encoder import loop, net


def test_only_adapters_and_heads_learn_and_merged_they_answer_the_same() -> None:
    task = learned("plan")
    torch.manual_seed(1)
    encoder, tokenizer = net.pretrained(net.Shape(tuple(task.classes()), tuple(task.labels())), layers=1, vocabulary=3000)
    before = {name: part.clone() for name, part in encoder.state_dict().items()}
    merge = net.adapted(encoder, 4)
    loop.train(encoder, tokenizer, [batches.Share(task, rows("plan")[:40])], loop.Recipe(epochs=1.0, rate=1e-2, batch_rows=10))
    learning = {name for name, part in encoder.named_parameters() if part.requires_grad}
    assert learning and all(name.startswith("tag.") or "lora_" in name for name in learning)
    assert sum("lora_B" in name and bool(part.any()) for name, part in encoder.named_parameters()) == 6, "each matrix of the layer: they begin at zero"
    for name, part in encoder.named_parameters():
        if "lora_" not in name and name.startswith("body."):
            assert part.grad is None and torch.equal(part, before[name.replace(".base_layer", "")]), name
    ids = torch.tensor([tokenizer.encode("play jazz and then book a table").ids])
    apart = encoder(ids, torch.ones_like(ids))[0]
    merge()
    assert torch.allclose(apart, encoder(ids, torch.ones_like(ids))[0], atol=1e-4)
    assert encoder.state_dict().keys() == before.keys()
    matrix = "body.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(encoder.state_dict()[matrix], before[matrix]) and torch.equal(encoder.state_dict()["body.encoder.layer.0.output.LayerNorm.weight"], before["body.encoder.layer.0.output.LayerNorm.weight"])


def test_a_training_with_adapters_ends_in_a_checkpoint_like_any_other_and_its_run_says_so(tmp_path: Path) -> None:
    for split, part in (("train", rows("plan")[:20]), ("dev", rows("plan")[20:30])):
        (tmp_path / f"plan.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    said = "train --task plan --from minilm --layers 1 --vocabulary 3000 --epochs 2 --batch-rows 10 --looks 2 --lora 4 --threads 1 --no-export"
    work = training.train(parser().parse_args([*said.split(), "--data", str(tmp_path), "--out", str(tmp_path / "m")]))
    assert not any("lora_" in name for name in net.load(work)[0].state_dict())
    (run,) = json.loads((work / "training.json").read_text())["runs"]
    assert run["lora"] == 4 and set(run["sha256"]) == {"plan.train.jsonl", "plan.dev.jsonl"} and all(len(digest) == 64 for digest in run["sha256"].values())
