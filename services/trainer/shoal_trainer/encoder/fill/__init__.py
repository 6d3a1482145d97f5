"""Fillers: encoders that read calls off a conversation, as schema-guided dialogue state trackers do (Rastogi 2020, "Towards Scalable
Multi-domain Conversational Agents"): the input says which methods there are, the conversation which of them are called and with what.

The model reads the methods' names and the conversation as one text. At each method's name it says whether it is called and when; at each
parameter's name where its value comes from: nowhere, a known value, a run of the conversation's words, or what an earlier call returned. One
pass reads all of a plan, nothing is written token by token, and a method that is not in the input cannot be called.

One way through: `inputs` (another task's input to methods and turns) -> `asked` (those as text) -> `study` (rows to tensors, and the loss) -> `net` (weights) -> `decode` (logits to calls).
"""
