"""An export is proved by the file that ships, over rows that were asked; and its card says what it was made of and what that cost."""
from pathlib import Path

import pytest
import torch
from conftest import rows

from shoal_trainer import lineage, parity, tasks
from shoal_trainer.encoder import export, net, publish

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The shipped splitter's weights: as they are in int8, so that rounding turns no answer."""
    net.save(*export.load(MODELS / "splitter" / "1"), tmp_path / "work")
    return tmp_path / "work"


def exported(checkpoint: Path, asked: list[dict]) -> dict:
    return publish.export(checkpoint.parent / "1", checkpoint, [(tasks.KNOWN["plan"](), asked)], "int8", 0.99)["training"]


def shaken(encoder: net.Encoder) -> net.Encoder:
    with torch.no_grad():
        encoder.tag.weight.copy_(encoder.tag.weight.flip(0))
    return encoder


def test_the_int8_file_is_held_to_its_own_weights_and_to_the_checkpoint(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = rows("plan")[:12]
    training = exported(checkpoint, asked)
    assert training["parity"] == training["parity_int8"] == 1.0 and set(training["right_int8"]) == {"plan"}
    with monkeypatch.context() as patch:
        patch.setattr(publish, "weights_of", lambda folder, card: (shaken(export.load(folder, card)[0]), None))
        with pytest.raises(parity.ParityError, match="12 answers equal those of its own weights"):
            exported(checkpoint, asked)
    to_onnx = publish.to_onnx
    monkeypatch.setattr(publish, "to_onnx", lambda encoder, tokenizer, folder, precision: to_onnx(shaken(encoder) if precision == "int8" else encoder, tokenizer, folder, precision))
    with pytest.raises(parity.ParityError, match="int8 weights answer 0"):
        exported(checkpoint, asked)
    monkeypatch.setattr(publish, "COSTS", 1.0)
    training = exported(checkpoint, asked)
    assert training["parity"] == 1.0 and training["parity_int8"] < 0.5, "the card says what rounding turned"


def test_rows_that_do_not_fit_say_nothing_and_where_none_does_the_export_is_refused(checkpoint: Path) -> None:
    fit, long = rows("plan")[:1], [{**row, "input": "play jazz " * 400} for row in rows("plan")[:3]]
    assert exported(checkpoint, fit + long)["parity"] == 1.0
    with pytest.raises(parity.ParityError, match="none of the dev rows"):
        exported(checkpoint, long)
    with pytest.raises(parity.ParityError, match="0.0% of 1 answers"):
        parity.held(Path("x"), 0, 1, 0.99, "the checkpoint's")
    decoder = MODELS / "compose" / "1"
    acts = [{"act": "INFORM", "slot": "n", "values": ["4 " * 2000]}]
    with pytest.raises(parity.ParityError, match="none of the dev rows"):
        parity.check(decoder, decoder, [{"task": "compose", "input": {"service": "S", "acts": acts}}], 8)


def test_a_cost_counts_each_core_and_a_resumed_run_once() -> None:
    runs = [
        {"seconds": 1800, "threads": 2, "resumed": False},
        {"seconds": 3600, "threads": 2, "resumed": True},  # From the beginning of the one above.
        {"average": ["a", "b"]},
        {"seconds": 360},
        {"seconds": 360, "threads": 8, "device": "cuda"},
        {"seconds": 360, "threads": 8, "device": "cuda:0"},
    ]
    assert lineage.cost({"runs": runs, "data": []}) == {"core_hours": 2.1, "gpu_hours": 0.2, "usd_per_core_hour": 0.02, "usd_per_gpu_hour": 2.5, "usd": 0.542}
    assert lineage.cost({"runs": runs[:2], "data": []})["usd"] == 0.04 and lineage.cost({"runs": [], "data": []})["usd"] == 0
