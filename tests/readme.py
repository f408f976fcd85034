"""Write the generated parts of the READMEs: `make readme`.

Reads the DAG, the benchmark tables and the last run of the recipe tiny in the store. Writes README.md (output of the demo, picture and
function of the DAG, summary of the measured results) and tasks/evaluate/README.md (the report card), each between its marks.
"""

import inspect
import subprocess
import sys

from flows import picture
from flows.pipeline import dag
from tasks.markdown import replace_section
from tests.benchmarks.harness import ROOT
from tests.benchmarks.summary import summary_rows


def main() -> None:
    readme = ROOT / "README.md"
    replace_section(readme, "demo", f"```console\n{output_of('report', '--brief')}\n```")
    replace_section(readme, "dag", picture.mermaid())
    replace_section(readme, "function", f"```python\n{inspect.getsource(dag).strip()}\n```")
    benchmarks = (ROOT / "tests/benchmarks/README.md").read_text(encoding="utf-8")
    rows = summary_rows(benchmarks)
    replace_section(readme, "summary", "\n".join(["| What | Result |", "| :--- | :--- |", *rows]))
    output_of("report", "--into", "tasks/evaluate/README.md")


def output_of(*arguments: str) -> str:
    """What a command of crawl2chat prints."""
    command = [sys.executable, "-m", "flows.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
