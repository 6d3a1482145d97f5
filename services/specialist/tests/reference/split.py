"""A tokenizer of the family that services/trainer makes, and ids that Python's `tokenizers` (whose regular expressions are Oniguruma's)
gives for texts that tell one regular expression from another. The test reads both files with the Rust crate and fancy-regex.

    python services/specialist/tests/reference/split.py

needs: tokenizers.
"""

import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
SPECIAL = ["<|end|>", "<|task|>", "<|input|>", "<|output|>"]
PATTERNS = {
    # services/trainer's own: a blank is a piece of its own.
    "split": r"[\p{L}\p{M}_]+|\p{N}|[^\s\p{L}\p{M}\p{N}_]+|\s",
    # Llama 3's and Qwen's: look-ahead, case folding, counted repeats.
    "split_llama": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
CORPUS = [
    "play some jazz by Anna Lindqvist, and book a table for two in Newark at 11:30",
    "Restaurants_2.FindRestaurants(category=\"Coffeehouse\", location=\"Newark\")",
    "it's 7 o'clock; they're here, I'll be there, we've 42 of 1,024 items",
    "Zoë's café naïve Ångström Ελλάδα Москва 東京 빠른 갈색",
] * 3
TEXTS = [
    "", " ", "  ", "a", " a", "a ", "  a  b  ", "\n", "a\nb", "a\r\n\r\nb \n c", "\t\ttabs", "trailing   ",
    "play some jazz", "Restaurants_2.FindRestaurants(category=\"Coffeehouse\")", "it's It'S they'RE I'll", "007 1234567 3.14",
    "e\u0301 combining", "naïve café Zoë", "Ελλάδα Москва 東京 빠른 갈색", "🙂🙂 emoji👍🏽", "a\u00a0b\u2003c\u3000d", "\u200b\ufeffzero", "__init__ _x",
    "$1.address ${2.x} $$5", "«quotes» “and” ‘these’", "x" * 50, "!?!?...", "½ ² Ⅷ ٣", "<|task|>plan<|input|>book <|output|>", "\u0000\u0001\u007f",
    "mixed123abc456", "l'été d'Anna", "ſ K ı İ ß", "\u2028\u2029line",
]

for name, pattern in PATTERNS.items():
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    (HERE / f"{name}.tokenizer.json").write_text(tokenizer.to_str() + "\n")
    ids = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in TEXTS]
    (HERE / f"{name}.ids.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in ids) + "\n]\n")
