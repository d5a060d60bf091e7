"""OpenAI's Chat Completions and Models shapes, both directions (https://github.com/openai/openai-openapi).

`request` and `response` speak of chats, `listing` of models, `failure` of errors. Knows nothing of HTTP but status
codes.
"""
