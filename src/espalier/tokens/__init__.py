"""Messages -> ids and supervision weights; columns of texts -> ids. Knows tokenizers and chat templates; no torch."""
