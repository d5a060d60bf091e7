"""The contenders of benchmarks/serve.py: each a module whose `measure(job)` answers all questions of a job."""
