"""A seccomp filter that allows a pure computation and nothing else: the system calls it names, all others give EPERM.

Reads and writes nothing: the program is bytes for `prctl(PR_SET_SECCOMP)` (seccomp(2), Linux). A list of what is allowed and not of what
is refused: the kernel gets new calls each year, io_uring among them. Filters look at numbers and registers only, never at memory, so a
path cannot be allowed: a process either opens files or does not.

No call that starts a process or thread, sends a signal, opens a socket, traces, mounts, or changes users or namespaces is allowed. `fcntl` is
limited to the flags of descriptors, since F_SETOWN lets the kernel send signals to other processes, and `ioctl` to what Python asks when
it opens a file, since TIOCSTI types into a terminal.
"""

import errno
import platform
import struct

LOAD_WORD, JUMP_EQUAL, RETURN = (
    0x20,
    0x15,
    0x06,
)  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K of <linux/bpf_common.h>
KILL, REFUSE, ALLOW = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000  # of <linux/seccomp.h>
# Offsets of struct seccomp_data: the call's number, the architecture, the low word of the second argument (little endian).
NUMBER, ARCHITECTURE, SECOND_ARGUMENT = 0, 4, 24
F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC = 1, 2, 3, 1030
TCGETS, FIOCLEX = 0x5401, 0x5451

# AUDIT_ARCH_..., and the numbers of the calls: of asm/unistd_64.h for x86-64, of asm-generic/unistd.h for 64-bit ARM. A 32-bit call of the
# same machine has another architecture and ends the process, an x32 call another number.
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COMPUTING = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13,
        "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20, "sched_yield": 24, "mremap": 25,
        "madvise": 28, "dup": 32, "nanosleep": 35, "getpid": 39, "exit": 60, "gettimeofday": 96, "getrusage": 98, "times": 100,
        "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110, "sigaltstack": 131, "gettid": 186, "time": 201,
        "futex": 202, "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
        "clock_nanosleep": 230, "exit_group": 231, "getrandom": 318, "fstat": 5,
    },
    "aarch64": {
        "read": 63, "write": 64, "close": 57, "lseek": 62, "mmap": 222, "mprotect": 226, "munmap": 215, "brk": 214, "rt_sigaction": 134,
        "rt_sigprocmask": 135, "rt_sigreturn": 139, "pread64": 67, "readv": 65, "writev": 66, "sched_yield": 124, "mremap": 216,
        "madvise": 233, "dup": 23, "nanosleep": 101, "getpid": 172, "exit": 93, "gettimeofday": 169, "getrusage": 165, "times": 153,
        "getuid": 174, "getgid": 176, "geteuid": 175, "getegid": 177, "getppid": 173, "sigaltstack": 132, "gettid": 178,
        "futex": 98, "sched_getaffinity": 123, "restart_syscall": 128, "clock_gettime": 113, "clock_getres": 114,
        "clock_nanosleep": 115, "exit_group": 94, "getrandom": 278, "fstat": 80,
    },
}  # fmt: skip
# What reads and writes files: allowed where the process sees a separate file system.
FILES = {
    "x86_64": {
        "stat": 4, "lstat": 6, "access": 21, "ftruncate": 77, "getcwd": 79, "chdir": 80, "rename": 82, "mkdir": 83, "rmdir": 84,
        "unlink": 87, "readlink": 89, "getdents64": 217, "openat": 257, "mkdirat": 258, "newfstatat": 262, "unlinkat": 263,
        "readlinkat": 267, "faccessat": 269, "renameat2": 316, "statx": 332, "faccessat2": 439,
    },
    "aarch64": {
        "ftruncate": 46, "getcwd": 17, "chdir": 49, "getdents64": 61, "openat": 56, "mkdirat": 34, "newfstatat": 79, "unlinkat": 35,
        "readlinkat": 78, "faccessat": 48, "renameat2": 276, "statx": 291, "faccessat2": 439,
    },
}  # fmt: skip
LIMITED = {
    "x86_64": {"fcntl": 72, "ioctl": 16},
    "aarch64": {"fcntl": 25, "ioctl": 29},
}
ALLOWED_ARGUMENTS = {"fcntl": (F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC), "ioctl": (TCGETS, FIOCLEX)}


def is_supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return platform.system() == "Linux" and platform.machine() in AUDIT


def program(*, opens_files: bool, machine: str = "") -> bytes:
    """The filter for this machine, or the one named. `opens_files`: whether files may be opened."""
    machine = machine or platform.machine()
    numbers = [*COMPUTING[machine].values(), *(FILES[machine].values() if opens_files else ())]
    lines = [
        _line(LOAD_WORD, ARCHITECTURE),
        _line(JUMP_EQUAL, AUDIT[machine], if_equal=1),
        _line(RETURN, KILL),
        _line(LOAD_WORD, NUMBER),
    ]
    for number in numbers:
        lines += [_line(JUMP_EQUAL, number, otherwise=1), _line(RETURN, ALLOW)]
    for name, number in LIMITED[machine].items():
        wanted = ALLOWED_ARGUMENTS[name]
        lines.append(_line(JUMP_EQUAL, number, otherwise=2 * len(wanted) + 2))
        lines.append(_line(LOAD_WORD, SECOND_ARGUMENT))
        for value in wanted:
            lines += [_line(JUMP_EQUAL, value, otherwise=1), _line(RETURN, ALLOW)]
        lines.append(_line(RETURN, REFUSE))
    return b"".join([*lines, _line(RETURN, REFUSE)])


def _line(code: int, value: int, if_equal: int = 0, otherwise: int = 0) -> bytes:
    """struct sock_filter: the code, the jumps by the result of a comparison, and the value."""
    return struct.pack("=HBBI", code, if_equal, otherwise, value)
