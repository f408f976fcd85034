"""What the sandbox of model/tools/python.py runs: it gives up its rights, then runs the code that it reads from its input.

Started as the text of this file, `python -c TEXT SETTINGS`, in an interpreter without site-packages, so it imports the standard library
alone. Reads the code from stdin, writes its output to stdout. Like a notebook it also prints the value of a last expression. An error
of the code is one line, and the exit status is 1.
"""

import ast
import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

# Imported before the rights are given up: where no file can be opened, these are the modules that there are.
MODULES = (
    "array", "base64", "bisect", "calendar", "cmath", "collections", "copy", "dataclasses", "datetime", "decimal", "difflib", "enum",
    "fractions", "functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "random", "re", "statistics", "string",
    "textwrap", "time", "typing", "unicodedata",
)  # fmt: skip
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38  # of <linux/prctl.h>
SECCOMP_MODE_FILTER = 2
NOBODY = 65534


class Filter(ctypes.Structure):
    """struct sock_fprog of <linux/filter.h>."""

    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))


def main() -> None:
    """Read settings and code, give up all rights, run the code."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    sys.argv[:] = [""]
    code = sys.stdin.read()
    for module in MODULES:
        __import__(module)
    # Codecs are modules too, imported at their first use.
    "".encode("ascii"), "".encode("latin-1"), "".encode("utf-16")
    give_up_rights(settings)
    sys.exit(run(code))


def give_up_rights(settings: dict[str, Any]) -> None:
    """Limits, another user, and the filter of system calls, in the order in which each is still allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    seconds = settings["cpu_seconds"]
    for name, value in (
        (resource.RLIMIT_AS, settings["memory_bytes"]),
        (resource.RLIMIT_CPU, seconds),  # both limits: the hard one kills, and no handler can catch that
        (resource.RLIMIT_FSIZE, settings["file_bytes"]),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        # A parent may have set a lower limit, which stays.
        hard = resource.getrlimit(name)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (bound, bound))
    # Root keeps rights that no limit takes, such as to raise limits. Within a user namespace there is nothing to drop.
    if os.getuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user clears it
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    program = bytes.fromhex(settings["filter"])
    asked = Filter(len(program) // 8, program)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(asked), 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


def run(code: str) -> int:
    """Run the code and print the value of its last expression. Returns the exit status."""
    try:
        tree = ast.parse(code, "code")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        names: dict[str, Any] = {"__name__": "__main__"}
        # What the sandbox is for. Nothing of this process is worth protecting from the code: the rights are given up.
        exec(compile(tree, "code", "exec"), names)  # noqa: S102
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "code", "eval"), names)  # noqa: S307
            if value is not None:
                print(value)
        sys.stdout.flush()
    except SystemExit:
        sys.stdout.flush()
    except BaseException as error:  # a KeyboardInterrupt that the code raised is its error, too
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    main()
