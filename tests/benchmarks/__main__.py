"""Run benchmarks and put the tables they print into tests/benchmarks/README.md, each between its marks.

python -m tests.benchmarks [NAME ...]      # all of NAMES, or these
"""

import re
import subprocess
import sys

from tasks.markdown import replace_section
from tests.benchmarks.harness import ROOT, machine, say

NAMES: dict[str, tuple[str, ...]] = {  # with the arguments of the README's figures
    "fineweb_speed": (),
    "ray_speed": (),
    "extraction_quality": (),
    "extractor_ablation": (),
    "filter_agreement": (),
    "language_identification": (),
    "pii_quality": (),
    "dedup_speed": ("--full",),
    "dedup_quality": (),
    "tokenizer_speed": (),
    "tokenizer_quality": (),
    "reading_speed": (),
    "robustness": (),
    "crawl_cost": (),
    "many_shards": (),
    "cluster_plan": (),  # from the tables of the two before
    "training_speed": (),
    "loader_speed": (),
    "orchestration": (),
    "learning": (),
    "causal_mentions": (),
    "generation_speed": (),
    "provenance": (),
    "linked_pages": (),
    "why_not": ("--carry-out",),
    "forgotten_site": (),
    "rl_speed": (),
    "rl_algorithms": (),  # these two from a run of the recipe tiny
    "preference_data": (),
    "fuzz_archives": (),
    "hostile_texts": (),
    "hostile_clients": (),
    "lease_races": (),
    "kill_moments": (),
    "team_kills": (),
    "cluster_readme": (),
    "image_build": (),
    "gaming": ("--seeds", "10"),
    "prefect_soak": ("--minutes", "60"),
    "code_size": (),
}


def main(names: list[str]) -> None:
    readme = ROOT / "tests/benchmarks/README.md"
    for name in names or NAMES:
        say(f"{name}: running")
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", *NAMES[name]]
        printed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        tables = re.sub("^#### ", "### ", printed, flags=re.MULTILINE)
        replace_section(readme, name, tables if machine() in tables else f"{tables}\n\n{machine()}.")


if __name__ == "__main__":
    main(sys.argv[1:])
