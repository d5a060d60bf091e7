"""Dataset versions as other people's files: their row shapes, in JSON lines, CSV, Parquet or a Hugging Face folder."""
