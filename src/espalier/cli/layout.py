"""What the command line looks like: the groups of `espalier --help` in life-cycle order, and the short names.

Every operation is reachable as `espalier NOUN VERB` without a line here; this page only orders nouns and gives the
commands of every day a shorter spelling.
"""

from __future__ import annotations

# Heading -> (command or noun, one line). The order is the life of a model.
SECTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "Start": (
        ("demo", "one model's whole life on made-up tickets, in minutes"),
        ("init", "make this folder a workspace"),
        ("doctor", "check this machine: cores, memory, disk, GPU, extras"),
        ("config", "settings and where each comes from"),
    ),
    "Make": (
        ("run", "run a recipe: a pipeline of any steps, cached and resumed"),
        ("data", "files -> documents -> examples -> a dataset version"),
        ("annotations", "what people, rules and models say of examples"),
        ("prompts", "versioned prompts"),
        ("create", "a tokenizer and a small model from scratch"),
        ("train", "tune a model: sft, cpt, dpo, orpo, kto, classify, reward, distill, grpo"),
        ("adapter", "adapters: import, merge into the base, combine, show"),
        ("pipelines", "check a recipe without running it"),
    ),
    "Judge": (
        ("eval", "score a model on a held-out split, with intervals"),
        ("evals", "reports: show, compare"),
        ("models", "versions: approve, reject, promote, roll back"),
        ("trace", "from an answer back to the pages it was trained on"),
    ),
    "Serve": (
        ("serve", "answer over HTTP: OpenAI endpoint, pages, workers"),
        ("ask", "put one question to a model"),
        ("batch", "answer a file of requests: run, create, show, cancel, results"),
        ("deployments", "what is served: versions behind a name, canaries, shadows, loaded engines"),
        ("capacity", "reserve slots and tokens for a model"),
        ("keys", "API keys: roles, budgets, revocation"),
        ("usage", "what was asked, by whom, at what cost"),
    ),
    "Watch": (
        ("runs", "what was executed, with what, and how it ended"),
        ("jobs", "queued and running work: list, logs, cancel"),
    ),
}

# A command of one word -> the operation behind it.
SHORT: dict[str, str] = {
    "ask": "inference.ask",
    "create": "training.create",
    "doctor": "workspace.doctor",
    "eval": "evals.run",
    "init": "workspace.init",
    "run": "pipelines.run",
    "trace": "inference.trace",
    "train": "training.tune",
}

# A noun of the command line -> the operations' noun, where people say another word.
NOUNS: dict[str, str] = {"adapter": "adapters", "batch": "batches", "data": "datasets", "train": "training"}

EPILOG = """\
Examples:
    espalier init                        a workspace and a recipe to start from
    espalier run recipe.yaml             everything the recipe says; again, and it takes seconds
    espalier models approve support@v1 --as ada
    espalier serve                       then any OpenAI client at http://127.0.0.1:8321/v1

Every command takes --help and --json. `espalier completion bash` prints shell completion.
"""
