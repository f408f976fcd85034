"""A run that holds the training slot until its file STOP is there, and writes when it had it.

`FOLDER NAME [CONSTANT=SECONDS ...]`: appends to FOLDER/events, ends when FOLDER/NAME is there, with these constants of flows/training_slot.py.
"""

import sys
import time
from pathlib import Path

from flows import training_slot


def main() -> None:
    folder, name, *constants = sys.argv[1:]
    for constant in constants:
        setattr(training_slot, constant.partition("=")[0], float(constant.partition("=")[2]))

    def note(kind: str) -> None:
        with Path(folder, "events").open("a") as events:
            print(kind, name, time.time(), file=events)

    with training_slot.training_slot(name):
        note("start")
        while not Path(folder, name).exists():
            time.sleep(0.1)
        note("end")
