"""Engines that answer elsewhere: vLLM, and any server that speaks OpenAI's chat completions."""
