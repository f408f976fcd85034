"""Copying sequences in the stream of a data set: their share, their order, and that they can be predicted by copying alone."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.data.copying import WithCopying
from model.data.dataset import Packed, Shuffled
from model.data.packing import Indices

TOKENS = np.arange(20, 500)


class Numbered(Shuffled):
    """Records whose tokens are all their number."""

    record_sequences = 1

    def __len__(self) -> int:
        return 7

    def fetch(self, indices: Indices) -> Packed:
        return Packed(torch.from_numpy(np.repeat(indices[:, None], 65, 1)), torch.ones(len(indices), 64))

    def files(self, indices: Indices) -> list[str]:
        return [f"{index}.arrow" for index in indices.tolist()]

    def counts(self) -> dict[str, int]:
        return {"records": 7}


def with_copying(num_falling: int, fraction: float, seed: int = 5) -> WithCopying:
    return WithCopying(
        Numbered(), num_falling=num_falling, fraction=fraction, sequence_tokens=64, tokens=TOKENS, seed=seed
    )


@given(st.integers(0, 300), st.floats(0, 0.5), st.integers(1, 1500))
def test_data_sets_own_records_keep_their_order(num_falling: int, fraction: float, num: int) -> None:
    drawn = with_copying(num_falling, fraction).draw(np.arange(num), 2)
    records = drawn[drawn >= 0]
    assert records.tolist() == Numbered().draw(np.arange(len(records)), 2).tolist()
    copies = np.flatnonzero(drawn < 0)
    assert drawn[copies].tolist() == (-1 - copies).tolist()
    falling = min(num, num_falling)
    expected = falling - (1 - fraction) * falling**2 / max(1, 2 * num_falling) + (num - falling) * fraction
    assert abs(len(copies) - expected) <= 1


def test_share_falls_from_all_to_the_fraction() -> None:
    drawn = with_copying(400, 0.1).draw(np.arange(2400), 0) < 0
    shares = [float(drawn[start : start + 100].mean()) for start in range(0, 2400, 100)]
    assert shares[:4] == pytest.approx([0.8875, 0.6625, 0.4375, 0.2125], abs=0.02)
    assert shares[4:] == pytest.approx([0.1] * 20, abs=0.01)


def test_any_position_can_be_drawn_by_itself() -> None:
    """A resumed run, or a rank with every second record, gets what the undisturbed run has there."""
    data = with_copying(100, 0.3)
    together = data.draw(np.arange(300), 1)
    assert together[1::2].tolist() == data.draw(np.arange(1, 300, 2), 1).tolist()
    assert together.tolist() == [int(data.draw(np.array([position]), 1)[0]) for position in range(300)]
    fetched = data.fetch(np.array([-3, 2, -9]))
    assert torch.equal(fetched.tokens[2], data.fetch(np.array([-9])).tokens[0])
    assert torch.equal(fetched.tokens[1], torch.full((65,), 2))


def test_what_is_learned_follows_from_what_came_before() -> None:
    """Each learned token stood after the same token before; what stands nowhere before is not learned."""
    fetched = with_copying(1, 0.5).fetch(-1 - np.arange(200))
    num_learned = 0
    for tokens, mask in zip(fetched.tokens.tolist(), fetched.mask.tolist(), strict=True):
        assert set(tokens) <= set(TOKENS.tolist())
        for place, is_learned in enumerate(mask, 1):
            if is_learned:
                earlier = set(pairwise(tokens[:place]))
                assert (tokens[place - 1], tokens[place]) in earlier
                num_learned += 1
    assert 0.3 < num_learned / fetched.mask.numel() < 0.8


def test_sequences_depend_on_the_seed_and_differ() -> None:
    numbers = -1 - np.arange(50)
    one, same, other = (with_copying(1, 0.5, seed).fetch(numbers).tokens for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not (one == other).all(1).any()
    assert len({tuple(row) for row in one.tolist()}) == 50


def test_files_and_epochs_are_those_of_the_data_set() -> None:
    data = with_copying(0, 0.25)
    assert data.files(np.array([-4, 3])) == ["3.arrow", "copying sequences"]
    assert data.files(np.array([-4])) == ["copying sequences"]
    assert data.epochs(400) == {"epochs": 300 / 7}
    assert len(data) == 7
