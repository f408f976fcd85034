"""Attempts to break out of the Python tool, in each room that this machine has. Each prints ESCAPED where it succeeds."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from model.tools.python import LACKS, Limits, PythonTool, works
from model.tools.registry import ToolError

LIMITS = Limits(cpu_seconds=1, wall_seconds=8.0)
ROOMS = [room for room in LACKS if works(room)]
SECRET = "correct horse battery staple"  # in a file, in the environment and in this process's memory
CALL = "import ctypes; libc = ctypes.CDLL(None); call = lambda *a: libc.syscall(*map(ctypes.c_long, a))\n"

# A name, and code with $SECRET (a file), $FOLDER (this user can write there), $PORT (of a server) and $PID (of this process).
ESCAPES = {
    "read_passwd": "print('ESCAPED' if 'root' in open('/etc/passwd').read() else '')",
    "read_shadow": "print('ESCAPED', open('/etc/shadow').read())",
    "read_secret": "print('ESCAPED', open('$SECRET').read())",
    "read_by_traversal": "print('ESCAPED', open('../../../../../../..$SECRET').read())",
    "read_by_symlink": "import os; os.symlink('$SECRET', '/tmp/s'); print('ESCAPED', open('/tmp/s').read())",
    "read_by_hard_link": "import os; os.link('$SECRET', '/tmp/s'); print('ESCAPED', open('/tmp/s').read())",
    "read_by_folder_descriptor": "import os; f = os.open('/', os.O_RDONLY | os.O_DIRECTORY); "
    "print('ESCAPED', os.read(os.open('$SECRET'[1:], os.O_RDONLY, dir_fd=f), 99))",
    "list_folder": "import os; print('ESCAPED', os.listdir('$FOLDER'))",
    "list_home": "import os; print('ESCAPED', os.listdir('/root'))",
    "write_folder": "open('$FOLDER/written', 'w').write('x'); print('ESCAPED')",
    "delete_secret": "import os; os.remove('$SECRET'); print('ESCAPED')",
    "write_interpreter": "import os; open(os.__file__, 'a').write('#'); print('ESCAPED')",
    "write_usr": "open('/usr/lib/x', 'w').write('x'); print('ESCAPED')",
    "write_root": "open('/x', 'w').write('x'); print('ESCAPED')",
    "fill_disk": "[open(f'/tmp/{n}', 'wb').write(bytes(10**6)) for n in range(99)]; print('ESCAPED')",
    "large_file": "open('/tmp/x', 'wb').write(bytes(10**8)); print('ESCAPED')",
    "set_user_id_bit": "import os; open('/tmp/x', 'w'); os.chmod('/tmp/x', 0o4755); print('ESCAPED')",
    "make_device": "import os, stat; os.mknod('/tmp/d', 0o666 | stat.S_IFBLK, os.makedev(8, 0)); print('ESCAPED')",
    "change_root": "import os; os.chroot('/tmp'); print('ESCAPED')",
    "proc_environment": "print('ESCAPED', open('/proc/self/environ').read())",
    "proc_parent_memory": "print('ESCAPED', open('/proc/$PID/mem', 'rb'))",
    "proc_root": "import os; print('ESCAPED', os.listdir('/proc/1/root'))",
    "proc_parent_descriptors": "import os; print('ESCAPED', os.listdir('/proc/$PID/fd'))",
    "sys_kernel": "import os; print('ESCAPED', os.listdir('/sys'))",
    "device_memory": "print('ESCAPED', open('/dev/mem', 'rb'))",
    "terminal": "print('ESCAPED', open('/dev/tty', 'w'))",
    "terminal_input": "import fcntl; fcntl.ioctl(1, 0x5412, b'x'); print('ESCAPED')",
    "environment": "import os; print('ESCAPED' if 'CANARY' in os.environ else '')",
    "inherited_descriptors": "import os\nfor n in range(3, 256):\n try: os.fstat(n); print('ESCAPED', n)\n except OSError: pass",
    "tcp": "import socket; socket.create_connection(('127.0.0.1', $PORT), 2); print('ESCAPED')",
    "udp": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', $PORT)); print('ESCAPED')",
    "unix_socket": "import socket; socket.socketpair(); print('ESCAPED')",
    "resolve_name": "import socket; print('ESCAPED', socket.getaddrinfo('example.com', 80))",
    "raw_socket_call": CALL + "print('ESCAPED' if call(41, 2, 1, 0) >= 0 else '')",
    "fork_bomb": "import os\nwhile True:\n os.fork(); print('ESCAPED')",
    "clone": CALL + "print('ESCAPED' if call(56, 17, 0, 0, 0, 0) >= 0 else '')",
    "vfork": CALL + "print('ESCAPED' if call(58) >= 0 else '')",
    "subprocess": "import subprocess; print('ESCAPED', subprocess.check_output(['/usr/bin/id']))",
    "shell": "import os; print('ESCAPED' if os.system('true') == 0 else '')",
    "execute": "import os; os.execv('/usr/bin/echo', ['echo', 'ESCAPED'])",
    "spawn": "import os; os.posix_spawn('/usr/bin/echo', ['echo', 'ESCAPED'], {}); print('ESCAPED')",
    "threads": "import threading; threading.Thread(target=print, args=('ESCAPED',)).start()",
    "kill_parent": "import os; os.kill($PID, 15); print('ESCAPED')",
    "kill_all": "import os; os.kill(-1, 9); print('ESCAPED')",
    "queue_signal": CALL + "print('ESCAPED' if call(129, $PID, 15, 0) >= 0 else '')",
    "signal_by_descriptor": CALL + "print('ESCAPED' if call(434, $PID, 0) >= 0 else '')",
    "signal_by_owner": "import fcntl; fcntl.fcntl(1, fcntl.F_SETOWN, $PID); print('ESCAPED')",
    "become_root": "import os; os.setuid(0); print('ESCAPED')",
    "trace_parent": CALL + "print('ESCAPED' if call(101, 16, $PID, 0, 0) >= 0 else '')",
    "read_parent_memory": CALL + "print('ESCAPED' if call(310, $PID, 0, 0, 0, 0, 0) >= 0 else '')",
    "raise_limits": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (999, 999)); print('ESCAPED')",
    "user_namespace": CALL + "print('ESCAPED' if call(272, 0x10000000) >= 0 else '')",
    "enter_namespace": CALL + "print('ESCAPED' if call(308, 0, 0) >= 0 else '')",
    "mount": CALL + "print('ESCAPED' if call(165, 0, 0, 0, 0, 0) >= 0 else '')",
    "capabilities": CALL + "print('ESCAPED' if call(126, 0, 0) >= 0 else '')",
    "process_control": CALL + "print('ESCAPED' if call(157, 4, 1, 0, 0, 0) >= 0 else '')",
    "io_uring": CALL + "print('ESCAPED' if call(425, 8, ctypes.addressof(ctypes.create_string_buffer(120))) >= 0 else '')",
    "bpf": CALL + "print('ESCAPED' if call(321, 0, 0, 0) >= 0 else '')",
    "perf_events": CALL + "print('ESCAPED' if call(298, 0, 0, -1, -1, 0) >= 0 else '')",
    "user_faults": CALL + "print('ESCAPED' if call(323, 0) >= 0 else '')",
    "memory_file": "import os; print('ESCAPED', os.memfd_create('x'))",
    "keyring": CALL + "print('ESCAPED' if call(250, 0, -3, 0, 0, 0) >= 0 else '')",
    "kernel_module": CALL + "print('ESCAPED' if call(313, 0, 0, 0) >= 0 else '')",
    "reboot": CALL + "print('ESCAPED' if call(169, 0xfee1dead, 672274793, 0, 0) >= 0 else '')",
    "set_clock": "import time; time.clock_settime(0, 0); print('ESCAPED')",
    "x32_call": CALL + "print('ESCAPED' if call(0x40000000 + 57) >= 0 else '')",
    "shared_memory": CALL + "print('ESCAPED' if call(29, 0, 10**9, 0o1600) >= 0 else '')",
    "other_modules": "import torch; print('ESCAPED')",
    "pip": "import pip; print('ESCAPED')",
    "subclasses": "[c for c in object.__subclasses__() if c.__name__ == '_wrap_close'][0].__init__.__globals__['system']"
    "('echo ESCAPED')",
    "c_system": CALL + "print('ESCAPED' if libc.system(b'/usr/bin/true') == 0 else '')",
}  # fmt: skip
# These end by a limit, and the error says so.
EXHAUSTIONS = {
    "endless_loop": ("while True: pass", "stopped"),
    "endless_loop_that_ignores_signals": (
        "import signal\nfor n in range(1, 32):\n try: signal.signal(n, signal.SIG_IGN)\n except (OSError, ValueError): pass\nwhile True: pass",
        "stopped",
    ),
    "endless_output": ("while True: print('x' * 1000)", "bytes of output"),
    "endless_memory": ("x = []\nwhile True: x.append(bytes(10**7))", "MemoryError"),
    "one_large_object": ("x = bytes(10**11)", "MemoryError"),
    "endless_recursion": ("f = lambda: f()\nf()", "RecursionError"),
    "large_power": ("x = 9 ** 9 ** 9", "stopped"),
    "slow_regular_expression": ("import re; re.match('(a+)+$', 'a' * 40 + 'b')", "stopped"),
    "crash": ("import ctypes; ctypes.string_at(0)", "crashed"),
    "silence": ("import os, time\nos.close(1)\ntime.sleep(1000)", "stopped after"),
    "sleep": ("import time; time.sleep(1000)", "stopped after"),
}


class Outside(NamedTuple):
    """What the code must not reach."""

    secret: Path
    port: int


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    tmp_path.chmod(0o777)
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    secret.chmod(0o666)
    monkeypatch.setenv("CANARY", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Outside(secret, server.getsockname()[1])


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("name", ESCAPES)
def test_escape_is_refused(room: str, name: str, outside: Outside) -> None:
    if "call(" in ESCAPES[name] and os.uname().machine != "x86_64":
        pytest.skip("the numbers of these system calls are those of x86-64")
    values = {
        "SECRET": str(outside.secret),
        "FOLDER": str(outside.secret.parent),
        "PORT": outside.port,
        "PID": os.getpid(),
    }
    code = ESCAPES[name]
    for key, value in values.items():
        code = code.replace(f"${key}", str(value))
    try:
        seen = PythonTool(room, LIMITS)(code)  # type: ignore[arg-type]
    except ToolError as error:
        seen = str(error)
    assert "ESCAPED" not in seen
    assert SECRET not in seen
    assert outside.secret.read_text() == SECRET
    assert list(outside.secret.parent.iterdir()) == [outside.secret]


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("name", EXHAUSTIONS)
def test_exhaustion_ends_by_a_limit(room: str, name: str) -> None:
    code, reason = EXHAUSTIONS[name]
    limits = Limits(cpu_seconds=1, wall_seconds=1.5) if reason == "stopped after" else LIMITS
    with pytest.raises(ToolError, match=reason):
        PythonTool(room, limits)(code)  # type: ignore[arg-type]


def test_there_are_at_least_40_attempts() -> None:
    assert len(ESCAPES) + len(EXHAUSTIONS) >= 40


def test_attempts_succeed_without_a_sandbox(outside: Outside, capfd: pytest.CaptureFixture[str]) -> None:
    """The attempts must be able to succeed, or the tests above would prove nothing: harmless ones are run in this process."""
    code = "\n".join(
        ESCAPES[name] for name in ("read_secret", "environment", "tcp", "memory_file", "unix_socket", "shell")
    )
    exec(code.replace("$SECRET", str(outside.secret)).replace("$PORT", str(outside.port)), {})
    assert capfd.readouterr().out.count("ESCAPED") == 6
