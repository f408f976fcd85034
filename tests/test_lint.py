"""The checks of `make lint`, as tests: a worker of the suite runs them while others run the rest, and one summary shows them all."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The recipe of the target: its lines begin with a tab. `make lint` prints the same in the order of its commands.
RECIPE = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
assert RECIPE, "the Makefile has no target lint"
CHECKS = [line.strip().removeprefix("$(BIN)/") for line in RECIPE[1].splitlines()]


@pytest.mark.parametrize("check", CHECKS)
def test_check_finds_nothing(check: str) -> None:
    program, *options = check.split()
    command = [str(Path(sys.executable).parent / program), *options]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
