"""Run benchmarks and put what they print into the README, each between its marks.

python -m tests.benchmarks [NAME ...]      # all of NAMES, or these
"""

import re
import subprocess
import sys

from tests.benchmarks.harness import ROOT, machine, say

NAMES: dict[str, tuple[str, ...]] = {  # with the arguments that the README's figures are made with
    "fineweb_speed": (),
    "extraction_quality": (),
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
    "training_speed": (),
    "loader_speed": (),
    "orchestration": (),
    "learning": (),
    "generation_speed": (),
}


def main(names: list[str]) -> None:
    readme = ROOT / "README.md"
    for name in names or NAMES:
        say(f"{name}: running")
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", *NAMES[name]]
        told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        told += "" if machine() in told else f"\n\n{machine()}."
        marks = f"<!-- {name} -->", f"<!-- /{name} -->"
        text, num = re.subn(
            f"{marks[0]}.*?{marks[1]}",
            lambda _, told=told, marks=marks: f"{marks[0]}\n\n{told}\n\n{marks[1]}",
            readme.read_text(encoding="utf-8"),
            flags=re.DOTALL,
        )
        if num != 1:
            sys.exit(f"README.md has {num} places for {name}: there must be one, {' '.join(marks)}")
        readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
