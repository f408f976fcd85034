"""The command `crawl2chat`: one file per verb.

Reads and writes the store that CRAWL2CHAT_STORE names (default: ./artifacts). Exit status: 0 done; 1 failed, with a traceback; 2 wrong
use, with one line that says what, where and the remedy; 3 done, and damaged parts of input files were skipped.
"""

import contextlib
import errno
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import typer
from rich.markup import escape

from flows.cli.ablate import ablate
from flows.cli.attacks import attacks
from flows.cli.chat import chat, complete
from flows.cli.compare import compare
from flows.cli.console import errors
from flows.cli.deploy import deploy
from flows.cli.gc import gc
from flows.cli.harness import harness
from flows.cli.infra import infra
from flows.cli.labels import labels
from flows.cli.plan import plan
from flows.cli.recipe import recipe
from flows.cli.reconcile import reconcile, worker
from flows.cli.report import report
from flows.cli.run import run
from flows.cli.scaling import scaling
from flows.cli.search import search
from flows.cli.seeds import seeds
from flows.cli.serve import serve
from flows.cli.show import show
from flows.cli.show_mask import show_mask
from flows.cli.stages import stages
from flows.cli.trace import trace
from flows.cli.why_not import why_not
from flows.cli.why_said import why_said
from flows.cli.without import without
from flows.prefect_server import prepare_environment
from model.errors import WRONG_USE, UserError
from model.files import FULL_DISK
from tasks.artifacts.store import Store
from tasks.redaction import redact_text

FAILED = 1  # exit status
# What a wrong path or missing rights cause. Any other error of the system is shown with its traceback.
PATH_ERRORS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
REMEDY = "make room, or name a store elsewhere with CRAWL2CHAT_STORE, and run the same command again"
REPORT = "This is a fault of crawl2chat, not of its use: please report it with these lines (README.md, Contribute)."

app = typer.Typer(
    no_args_is_help=True,
    # No --install-completion: it would write into the user's shell configuration.
    add_completion=False,
    # Rich's traceback can print local variables, and a page's text or a signed URL may be among them.
    pretty_exceptions_enable=False,
    help="From raw Common Crawl WARC files to a chat assistant, stage by stage.",
)
COMMANDS = (
    run, scaling, seeds, ablate, attacks, stages, recipe, show, show_mask, search, trace, why_said, why_not, without, report, compare, harness,
    chat, complete, serve, plan, deploy, worker, reconcile, gc,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)
app.add_typer(infra, name="infra")
app.add_typer(labels, name="labels")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. A user's mistake is one line and status 2, any other error shows its traceback and has status 1."""
    # Without a handler Python prints warnings of a library's logger on stderr, in the middle of the display.
    logging.getLogger("crawl2chat").addHandler(logging.NullHandler())
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):  # a text that the terminal cannot show must not end the run
            output.reconfigure(errors="replace")
    # Before any command imports Prefect, which reads its settings from the environment at import.
    prepare_environment()
    try:
        app(args=list(arguments) if arguments is not None else None)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        with contextlib.suppress(OSError):
            # Python flushes stdout once more when it ends, and would print a second BrokenPipeError there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except UserError as error:
        _end(f"[red]error:[/] {escape(_one_line(error))}", WRONG_USE)
    except OSError as error:
        if error.errno in FULL_DISK:
            _end(
                f"[red]error:[/] {escape(_one_line(error))} in {escape(Store.default().shown_url)}: {REMEDY}", WRONG_USE
            )
        if error.errno in PATH_ERRORS and error.filename is not None:
            _end(f"[red]error:[/] {escape(_one_line(error))}", WRONG_USE)
        _show_fault(error)
    except Exception as error:
        _show_fault(error)


def _one_line(error: Exception) -> str:
    """The message without line ends and secrets: an error of a library may quote a signed URL."""
    return redact_text(" ".join(str(error).splitlines()))


def _end(line: str, status: int) -> None:
    errors.print(line, highlight=False, soft_wrap=True)
    sys.exit(status)


def _show_fault(error: Exception) -> None:
    """Print the traceback, and last what went wrong and where to report it."""
    errors.print(redact_text("".join(traceback.format_exception(error))), highlight=False, soft_wrap=True, markup=False)
    _end(f"[red]failed:[/] {escape(_one_line(error) or type(error).__name__)}\n{REPORT}", FAILED)


if __name__ == "__main__":
    main()
