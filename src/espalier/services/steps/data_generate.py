"""Step `data.generate`: examples made by a model from those of a dataset, as a dataset version of their own.

What a model behind a network answers is no function of the step's inputs. So its answers are recorded in the version,
and the version is what is cached: the same recipe does not ask again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.data.generate.spec import GenerateSpec, QuestionsMethod
from espalier.nn.locate import anchor_base, list_base_files


def _base_files(spec: GenerateSpec, folder: Path) -> Iterable[Path]:
    models = [spec.model, *([spec.judge.model] if spec.judge and spec.judge.model else [])]
    return [file for model in models if model.base for file in list_base_files(anchor_base(model.base, folder))]


@step(
    "data.generate",
    version=1,
    spec=GenerateSpec,
    inputs={"dataset": "dataset", "prompt": "prompt?", "judge_prompt": "prompt?"},
    outputs={"dataset": "dataset"},
    files=_base_files,
)
def data_generate(context: StepContext, spec: GenerateSpec) -> None:
    """Have a model make questions, instructions or paraphrases, and a judge leave out the poor ones."""
    from espalier.data.generate.dataset import read_passages, write_generated
    from espalier.prompts.catalog import read_prompt
    from espalier.services.generation import generate_from
    from espalier.store.examples import read_examples

    folder = context.input("dataset")
    examples = list(read_examples(folder))
    prompts = {name: read_prompt(context.input(name)) for name in ("prompt", "judge_prompt") if name in context.inputs}
    of_documents = isinstance(spec.method, QuestionsMethod) and spec.method.passages == "documents"
    parents = read_passages(folder, examples) if of_documents else examples
    journal = Path(spec.answers) if spec.answers else context.scratch / "answers.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    generated = generate_from(parents, spec, journal, emit=context.emit, **prompts)
    manifest = write_generated(
        context.output("dataset"),
        (folder, context.inputs["dataset"].digest),
        examples,
        generated.rows,
        generated.answers,
        spec,
    )
    context.metric("examples", manifest.examples)
    context.metric("made", manifest.documents_kept)
    context.metric("refused", manifest.documents_read - manifest.documents_kept)
    spent = generated.spending
    context.metric("requests", spent.requests)
    context.metric("resumed", spent.resumed)
    context.metric("prompt_tokens", spent.prompt_tokens)
    context.metric("completion_tokens", spent.completion_tokens)
    context.metric("cost_usd", spent.cost_nusd / 1e9)
    context.describe("dataset", name=spec.name)
