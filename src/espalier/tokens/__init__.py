"""Messages -> ids and supervision weights. The only place that knows tokenizers and chat templates; no torch."""
