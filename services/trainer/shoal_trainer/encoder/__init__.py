"""Encoders: specialists that answer in one pass, a class of the text, tags of its tokens, or both.

Where an answer is a choice, or is put together from runs of the input's words, nothing has to be written token by token. `tool_call` and
`plan` are of this kind (joint intent and slot filling: Chen 2019, "BERT for Joint Intent Classification and Slot Filling"), and `route`.

One way through: `align` (rows to ids and tags) -> `net` (weights) -> `loop` (training) -> `export` (ONNX) -> `runtime` (answers of a folder,
by `viterbi`), which publishing and evaluation share with the decoders.
"""
