"""Token ids in, token ids out: paged attention, continuous batching, in a process of its own.

Promise: the output of a request depends on its tokens, parameters and seed alone, never on its neighbours.  Never:
knowledge of HTTP, users, policy or the log; code from a model folder; a byte that was not hashed first.
Values: `EngineConfig`, `GenerationRequest`, `SamplingParams`, `StepEvent`, `Batch`.  Entry: `service.EngineService`.
"""
