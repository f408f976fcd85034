"""The page of a run: its cost counts processes that live and that have ended, and its command repeats it."""

import subprocess
import sys
import time

import pytest

from flows.run_page import cpu_seconds, repeat_command
from model.config import Config
from tasks.artifacts.manifest import Report
from tasks.artifacts.step import Outcome, Step

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"


def test_cpu_seconds_count_children_that_live_and_that_have_ended() -> None:
    before = cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alive = cpu_seconds()
        child.communicate(b"\n")
    assert alive - before > 0.25
    assert cpu_seconds() - before > 0.25


def test_cpu_seconds_count_this_process() -> None:
    before, start = cpu_seconds(), time.process_time()
    while time.process_time() - start < 0.1:
        pass
    assert cpu_seconds() - before > 0.05


def test_command_outside_a_deployment_is_the_command_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step("stage", 1, Report, Config(), {}, lambda *_: Outcome())
    monkeypatch.setattr(sys, "argv", ["/x/bin/crawl2chat", "run", "tiny", "--token", "hunter2", "--set", "a=b c"])
    command = repeat_command(step)
    assert command.startswith("crawl2chat run tiny --token")
    assert command.endswith("--set 'a=b c'")
    assert "hunter2" not in command
