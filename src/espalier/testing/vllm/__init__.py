"""A double of vLLM's server over a tiny model on the CPU, strict about every request: for tests of its clients.

Written from vllm-project/vllm as of November 2026: entrypoints/openai/completion/{protocol,serving}.py,
entrypoints/openai/models/serving.py, entrypoints/serve/lora/protocol.py, entrypoints/serve/middleware/authenticate.py,
lora/peft_helper.py, sampling_params.py, v1/sample/sampler.py; and from docs.vllm.ai (LoRA adapters, OpenAI-compatible
server). Where vLLM leaves a field aside that it does not know, the double refuses the request.
"""
