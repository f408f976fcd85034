"""Initial weights that can copy: induction heads (Olsson et al. 2022), set by hand, in a transformer that is else drawn at random.

Reads and writes nothing. An induction head looks for the last place where the current token stood, and predicts what came after it there. With
it a model repeats a name that it has never seen. Such heads form within the first billions of tokens of text; a small model that is trained
on a few million has none, and answers from memory alone, whatever stands in a search result or in the question. Weights that begin
with a structure instead of noise are known from Trockman & Kolter 2023, "Mimetic initialization of self-attention layers".

    embedding   channel 0 is one constant; the last K channels are 0
    layer 0     the first head attends to the token before, by RoPE alone: its queries and keys read the constant. It writes a random
                projection of that token to the last K channels
    layer 1     each copying head compares a projection of the current token with those channels, in pairs that RoPE turns slowly, and adds
                the token that it finds to the prediction. Several heads, because one of width K holds a part of D channels only

Training changes all of these weights as it does others. model/data/copying.py keeps it from undoing them.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.config import SLOW_RADIANS, CopyingConfig
from model.network.transformer import Attention, Transformer, frequencies

# Found by trying on sequences of random tokens: of a new model of the recipe `tiny`, 70% of the copies are right before any training.
CONSTANT = 4.0  # of the first channel, in standard deviations of the embedding
PREVIOUS_GAIN = 2.0  # of queries and keys: a score of 23 one token back, and at least 4 less elsewhere
MATCH_GAIN = 2.5
WRITTEN = 0.08  # of the projection of the token before; twice the deviation of the embedding at width 128
COPIED = 0.3
NUM_PREVIOUS_PAIRS = 3  # the fastest pairs of RoPE: one alone would find every 6th token too


@torch.no_grad()
def add_induction_heads(model: Transformer, copying: CopyingConfig, seed: int) -> None:
    """Change the weights of an initialized model so that `copying.num_heads` heads of layer 1 copy.

    Raises ValueError where the shape has no place for them.
    """
    config, num_heads = model.config, copying.num_heads
    copying.check(config)
    D, K = config.width, config.head_width
    num_tokens = D - K - 1  # channels that hold a token
    radians = frequencies(config, torch.device("cpu")).tolist()
    slow = [pair for pair, turn in enumerate(radians) if turn <= SLOW_RADIANS]
    generator = torch.Generator().manual_seed(seed)
    embedding = model.model.embed_tokens.weight
    embedding[:, 0] = CONSTANT * float(embedding.std())
    embedding[:, D - K :] = 0.0
    token = slice(1, D - K)
    projection = _orthogonal_rows(K, num_tokens, generator)
    before, matching = _attention(model, 0), _attention(model, 1)
    group = config.num_heads // config.num_kv_heads
    _attend_to_previous(before, group, radians[:NUM_PREVIOUS_PAIRS])
    _weight(before, "v_proj")[:K, token] = projection
    _weight(before, "o_proj")[D - K :, :K] = WRITTEN * torch.eye(K)
    # Both halves of a pair, see `rotate`.
    channels = [half + pair for half in (0, K // 2) for pair in slow]
    _weight(matching, "q_norm")[channels] = _weight(matching, "k_norm")[channels] = MATCH_GAIN
    parts = _orthogonal_rows(num_heads * K, num_tokens, generator)
    for head in range(num_heads):
        query, key = _clear(matching, head, group)
        # Each head compares other numbers of the projection, since it has no place for all K.
        compared = torch.randperm(K, generator=generator)[: len(channels)]
        _weight(matching, "q_proj")[[query.start + channel for channel in channels], token] = projection[compared]
        _weight(matching, "k_proj")[[key.start + channel for channel in channels], D - K + compared] = 1.0
        part = parts[head * K : (head + 1) * K]
        _weight(matching, "v_proj")[key, token] = part
        _weight(matching, "o_proj")[token, query] = COPIED * part.T


def _attend_to_previous(attention: Attention, group: int, radians: Sequence[float]) -> None:
    """Have the first head attend to the token before: its query is its key, turned by one token, in RoPE's pairs of `radians`."""
    query, key = _clear(attention, 0, group)
    half = attention.head_width // 2
    for pair, turn in enumerate(radians):
        _weight(attention, "q_proj")[query.start + pair, 0] = math.cos(turn)
        _weight(attention, "q_proj")[query.start + pair + half, 0] = -math.sin(turn)
        _weight(attention, "k_proj")[key.start + pair, 0] = 1.0
        for norm in ("q_norm", "k_norm"):
            _weight(attention, norm)[[pair, pair + half]] = PREVIOUS_GAIN


def _clear(attention: Attention, key_head: int, group: int) -> tuple[slice, slice]:
    """Set a key head and its `group` of query heads to 0. Returns the rows of the first of these, and of the key head, in the projections."""
    K = attention.head_width
    key, queries = (slice(key_head * width, (key_head + 1) * width) for width in (K, K * group))
    _weight(attention, "q_proj")[queries] = 0.0
    _weight(attention, "k_proj")[key] = _weight(attention, "v_proj")[key] = 0.0
    _weight(attention, "o_proj")[:, queries] = 0.0
    return slice(queries.start, queries.start + K), key


def _attention(model: Transformer, layer: int) -> Attention:
    found = model.model.get_submodule(f"layers.{layer}.self_attn")
    assert isinstance(found, Attention)
    return found


def _weight(attention: Attention, part: str) -> Tensor:
    return attention.get_parameter(f"{part}.weight")


def _orthogonal_rows(num_rows: int, num_columns: int, generator: torch.Generator) -> Tensor:
    """Random rows [num_rows, num_columns] of length 1, at right angles to each other."""
    columns: Tensor = torch.linalg.qr(torch.randn(num_columns, num_rows, generator=generator)).Q
    return columns.T
