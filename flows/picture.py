"""The picture of the DAG as a Mermaid flowchart, drawn from `dag()` itself, so that it cannot miss an edge.

Reads a recipe with every optional source switched on; building its steps opens no file. Writes nothing. Inputs that the recipe `tiny`
does not use are dashed arrows.
"""

import re
from collections.abc import Iterator

from flows.pipeline import dag
from flows.recipes import STAGE_NAMES, make_recipe
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.step import Step

# Values that name nothing: building a DAG opens no file (tests/flows/test_pipeline.py checks it).
EVERY_OPTION = (
    'ingest.languages=["en"]',
    'ingest.blocklists=["lists"]',
    'filter.blocklists=["lists"]',
    "filter.quality_model.positives=good",
    "filter.quality_model.negatives=web",
    'dedup.against=["dedup/0123456789abcdef"]',
    'dedup.eval_sets=["questions.jsonl"]',
    "tokenizer.vocabulary=tokenizer.json",
    'tokenizer.compared_with=["tokenizer.json"]',
    "pretrain.initial_model=model",
    "sft.num_tool_conversations=1",
    "evaluate.num_tool_questions=1",
    'pretrain.mixture={"tokenize/0123456789abcdef": 1.0}',
)

# Settings under which a stage reads something else instead: their arrows are drawn next to the others.
ALTERNATIVES = (*EVERY_OPTION, "rlhf.algorithm=dpo")

Edge = tuple[str, str]  # node to node, by name


def mermaid() -> str:
    """The flowchart: stages as boxes, sources as rounded boxes, one line for all inputs of a step."""
    used = set(edges_of(()))
    inputs: dict[tuple[str, str], list[str]] = {}  # (arrow, target) -> sources
    # dict.fromkeys removes repeated edges and keeps the order; a set would draw another picture in each process.
    for source, target in dict.fromkeys([*edges_of(EVERY_OPTION), *edges_of(ALTERNATIVES)]):
        arrow = "-->" if (source, target) in used else "-.->"
        # Mermaid's `a & b --> c` is one line for all solid inputs of a node, and one for all dashed.
        inputs.setdefault((arrow, target), []).append(source)
    drawn: set[str] = set()
    lines = []
    for (arrow, target), sources in inputs.items():
        *left, right = [_node(name, drawn) for name in (*sources, target)]
        lines.append(f"  {' & '.join(left)} {arrow} {right}")
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def _node(name: str, drawn: set[str]) -> str:
    """A node by its name; where a source is drawn first, with its shape and label."""
    if name in STAGE_NAMES or name in drawn:
        return name
    drawn.add(name)
    return f"{name}([{name.replace('_', ' ')}])"


def edges_of(settings: tuple[str, ...]) -> Iterator[Edge]:
    """Every arrow of the DAG of `tiny` with these settings, inputs of the first stage first."""
    for stage, step in dag(make_recipe("tiny", settings=settings)).by_stage().items():
        yield from _inputs_of(stage, step)


def _inputs_of(name: str, step: Step[Artifact]) -> Iterator[Edge]:
    for role, given in step.inputs.items():
        source = _name_of(role, given)
        if given.is_source:
            yield from _inputs_of(source, given)
        yield source, name


def _name_of(role: str, step: Step[Artifact]) -> str:
    """A stage by its name; a source with a stage name by that name; a resource by the role that it has, without its number."""
    if step.stage in STAGE_NAMES and not step.is_source:
        # An existing artifact has neither settings nor inputs: the output of an earlier run, not the stage of this one.
        return step.stage if step.settings.model_dump() or step.inputs else f"earlier_{step.stage}"
    # eval_sets_1, eval_sets_2 and so on are one node.
    return re.sub(r"_\d+$", "", role) if step.stage in ("resource", *STAGE_NAMES) else step.stage
