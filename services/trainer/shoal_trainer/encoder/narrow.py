"""A checkpoint without the word pieces of other scripts. all-MiniLM-L6-v2 has 1,662 of them and 994 that stand for nothing, a megabyte of int8 weights
that no text in Latin letters reads: such texts are read as before, token for token, and a character of another script as unknown."""
from __future__ import annotations

from pathlib import Path

import torch

from .. import lineage
from . import net


def narrow(folder: Path, into: Path) -> int:
    """Writes it, of a checkpoint or of an exported version; returns how many pieces are left."""
    encoder, tokenizer = net.opened(folder)
    kept = {piece: i for piece, i in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]) if _latin(piece)}
    with torch.no_grad():
        words = encoder.body.embeddings.word_embeddings
        words.weight = torch.nn.Parameter(words.weight[torch.tensor(list(kept.values()))].clone())
    words.num_embeddings = encoder.body.config.vocab_size = len(kept)
    net.save(encoder, net.pruned(tokenizer, kept), into)
    lineage.write(lineage.of(folder), into)
    return len(kept)


def _latin(piece: str) -> bool:
    """Latin letters with their marks (to U+024F), and what any text may hold: dashes, quotation marks, currencies (U+2010 to U+20CF)."""
    return not piece.startswith("[unused") and all(ord(c) <= 0x024F or 0x2010 <= ord(c) <= 0x20CF for c in piece)
