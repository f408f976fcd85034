"""Packing: items of different lengths into few rows of one length. Reads and writes nothing.

Best-fit decreasing (Johnson 1973), which Ding et al. 2024, "Fewer Truncations Improve Language Modeling", use for documents. All items of
a length are placed at once, so that the time grows with the number of lengths and not of items.
"""

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def best_fit(lengths: Indices, capacity: int) -> tuple[Indices, Indices]:
    """Put items of lengths [N], 1 to capacity, into rows: longest first, each where the least room is left.

    Returns the numbers [N] of the items, row by row, and where each row begins and the last one ends among them [R + 1].
    """
    row_of = np.empty(len(lengths), np.int64)
    # Rows by the room that is left in them: looking for the best fit is a walk over at most `capacity` entries.
    rows_by_room = [np.empty(0, np.int64) for _ in range(capacity + 1)]
    num_rows = 0
    for waiting in _by_length(lengths):
        length, items = int(lengths[waiting[0]]), waiting
        while len(items):
            # The least room that takes an item; without one, a new row.
            room = next((room for room in range(length, capacity) if len(rows_by_room[room])), capacity)
            # A row with room for several items of this length takes them all: best fit would choose it again.
            each = room // length
            # Ceiling division.
            num_wanted = -(-len(items) // each)
            if room == capacity:
                rows_by_room[room] = np.arange(num_rows, num_rows + num_wanted)
                num_rows += num_wanted
            rows, rows_by_room[room] = np.split(rows_by_room[room], [num_wanted])
            placed, items = np.split(items, [len(rows) * each])
            row_of[placed] = rows[np.arange(len(placed)) // each]
            # Only the last row may take fewer.
            num_in_last = len(placed) - each * (len(rows) - 1)
            for some, num in ((rows[:-1], each), (rows[-1:], num_in_last)):
                left = room - num * length
                rows_by_room[left] = np.concatenate([rows_by_room[left], some])
    # Stable sorts: the packing depends on the lengths and their order alone, on every machine.
    starts = np.searchsorted(np.sort(row_of), np.arange(num_rows + 1))
    return np.argsort(row_of, kind="stable"), starts


def _by_length(lengths: Indices) -> list[Indices]:
    """The numbers of the items of each length, longest first, in order."""
    order = np.argsort(-lengths, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1) if len(order) else []
