"""One frozen base and many adapters, answering many requests at once. Knows no HTTP, no key and no price."""
