"""The filter, run by a small interpreter of BPF: what it allows, and what it does with everything else."""

import struct

import pytest

from model.tools import seccomp


def verdict(program: bytes, number: int, architecture: int, second_argument: int = 0) -> int:
    lines = list(struct.iter_unpack("=HBBI", program))
    data = {seccomp.NUMBER: number, seccomp.ARCHITECTURE: architecture, seccomp.SECOND_ARGUMENT: second_argument}
    place = accumulator = 0
    while True:
        code, if_equal, otherwise, value = lines[place]
        if code == seccomp.RETURN:
            return value
        if code == seccomp.LOAD_WORD:
            accumulator = data[value]
        else:
            assert code == seccomp.JUMP_EQUAL
            place += if_equal if accumulator == value else otherwise
        place += 1


@pytest.mark.parametrize("machine", seccomp.AUDIT)
@pytest.mark.parametrize("opens_files", [True, False])
def test_only_named_calls_are_allowed(machine: str, opens_files: bool) -> None:
    program = seccomp.program(opens_files=opens_files, machine=machine)
    named = {*seccomp.COMPUTING[machine].values()} | ({*seccomp.FILES[machine].values()} if opens_files else set())
    for number in (*range(600), 0x40000000 + 57, 2**32 - 1):
        expected = seccomp.ALLOW if number in named else seccomp.REFUSE
        assert verdict(program, number, seccomp.AUDIT[machine]) == expected


@pytest.mark.parametrize("machine", seccomp.AUDIT)
def test_arguments_of_fcntl_and_ioctl_are_limited(machine: str) -> None:
    program = seccomp.program(opens_files=True, machine=machine)
    for name, number in seccomp.LIMITED[machine].items():
        for argument in range(0, 0x6000):
            expected = seccomp.ALLOW if argument in seccomp.ALLOWED_ARGUMENTS[name] else seccomp.REFUSE
            assert verdict(program, number, seccomp.AUDIT[machine], argument) == expected


def test_call_of_another_architecture_kills() -> None:
    program = seccomp.program(opens_files=True, machine="x86_64")
    assert verdict(program, 0, 0x40000003) == seccomp.KILL  # i386, by int 0x80
