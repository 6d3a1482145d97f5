"""Data to a Shoal model folder: train, export to ONNX, check parity, write the card.

Rooms, in the order in which a row passes them: `data` (read and refuse), `tasks` (what a task's rows and answers look like), `prompt`
(text to token ids, by the chat template that the specialist renders too), `model` and `loop` (weights), `export` and `parity`
(ONNX, and the proof that it is the same model), `card` (what a folder says of itself).
"""
