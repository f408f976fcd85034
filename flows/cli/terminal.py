"""A run on the terminal: a line per stage with progress, rates and the time left, and then with what it made.

If the output is not a terminal, plain lines at most every PLAIN_SECONDS.
"""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from tasks.artifacts.manifest import Manifest
from tasks.artifacts.step import Step
from tasks.execution.reporter import Reporter

# In the log file of a job that takes hours, a line each second would bury the rest.
PLAIN_SECONDS = 10.0
COUNTS = "files records_read pages records documents documents_dropped vocab_size tokens train_records steps rollouts questions runs"
METRICS = (
    "bytes_per_token train/loss_nats validation/bits_per_byte validation/accuracy policy/seen_wording_accuracy "
    "predicted/loss_nats error_fraction"
)
HEADLINES = {*COUNTS.split(), *METRICS.split()}  # the counts and metrics that the summary of an artifact shows


class Terminal(Reporter):
    """Shows all stages of a run."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars: dict[str, TaskID] = {}
        self.last_plain = 0.0
        self.shown: set[str] = set()  # artifacts that have their line
        columns = (
            SpinnerColumn(),
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(None, table_column=Column(ratio=1)),
            TextColumn("{task.fields[amount]:>22}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[values]}", table_column=Column(ratio=3, no_wrap=True)),
        )  # on a narrow terminal the bar and the values shrink
        # Disabled where the output is no terminal: `progress` prints lines there.
        self.display = Progress(*columns, console=console, disable=not console.is_terminal, expand=True)

    def __enter__(self) -> Self:
        self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.display.stop()

    def log(self, stage: str, message: str) -> None:
        """Print the line, dimmed, after the name of its stage."""
        self.console.print(f"[dim]  {stage:<12} {escape(message)}[/]", highlight=False, soft_wrap=True)

    def progress(self, stage: str, done: float, total: float, unit: str, values: dict[str, float]) -> None:
        """Move the stage's bar; where the output is not a terminal, print a line at most every PLAIN_SECONDS."""
        amount = f"{done:,.0f}/{total:,.0f} {unit}"
        shown = "  ".join(f"{name} {_number(value)}" for name, value in values.items())
        # The bar is made at the first progress, and not before: a stage that is skipped never has one.
        if stage not in self.bars:
            self.bars[stage] = self.display.add_task(stage, total=total, amount=amount, values=shown)
        self.display.update(self.bars[stage], completed=done, total=total, amount=amount, values=shown)
        # One clock for all stages: they run one after the other.
        if not self.console.is_terminal and time.monotonic() - self.last_plain > PLAIN_SECONDS:
            self.last_plain = time.monotonic()
            self.console.print(f"  {stage:<12} {amount}  {shown}", highlight=False, soft_wrap=True)

    def finished(self, step: Step[Any], manifest: Manifest, is_skipped: bool) -> None:
        """Replace the stage's bar by a line with its time, in seconds, and its headline figures."""
        if step.stage in self.bars:
            self.display.remove_task(self.bars.pop(step.stage))
        # A source that several stages read has one line, and not one for each of them.
        if is_skipped and step.id in self.shown:
            return
        self.shown.add(step.id)
        if is_skipped:
            outcome = "[dim]up to date[/]"
        else:
            outcome = f"{manifest.provenance['wall_seconds']:6.1f} s   {summary(manifest)}"
        line = f"[green]✓[/] {step.stage:<13} [dim]{manifest.fingerprint}[/]  {outcome}"
        self.console.print(line, highlight=False, soft_wrap=True)


def summary(manifest: Manifest) -> str:
    """The counts and metrics of an artifact that fit on a line."""
    counts = [f"{_number(value)} {_plain(name)}" for name, value in manifest.counts.items() if name in HEADLINES]
    metrics = [f"{_plain(name)} {_number(value)}" for name, value in manifest.metrics.items() if name in HEADLINES]
    return ", ".join(counts + metrics)


def _plain(name: str) -> str:
    return name.rpartition("/")[2].replace("_", " ")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or isinstance(value, int) else f"{value:.3g}"
