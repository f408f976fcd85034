"""Talk with a language model: this file, a model.safetensors next to it, and numpy. Nothing else.

    python run.py                          a conversation; an empty line ends it
    python run.py -p "Who are you?"        one reply

It is written to be read from top to bottom: the file format, the tokenizer, the network, the choice of the next token, names, the conversation.
No part is simplified: tokens and replies are those of the project that trained the model. model.safetensors holds the weights, and
in its metadata the network's config.json and the tokenizer.json, both in Hugging Face's formats. Letters in comments:
T tokens, D width, H heads, J key and value heads, K head width, V vocabulary.
"""

import sys
from importlib.util import find_spec

if sys.version_info < (3, 11) or not find_spec("numpy"):  # here, before what older ones do not have
    sys.exit("run.py needs Python 3.11 or newer with numpy; this is Python " + sys.version.split()[0])

import argparse
import codecs
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Fields = dict[str, Any]  # of a JSON object
Messages = list[tuple[str, str]]  # role and text

# 1. The file: 8 bytes with the length of the header, the header in JSON, then the numbers of all tensors in a row.

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def read_safetensors(path: Path) -> tuple[dict[str, tuple[npt.NDArray[Any], str]], dict[str, str]]:
    """Tensors by name, each with its type, as they lie in the file, and the metadata. Raises ValueError where the file is damaged: it may
    come from anywhere, and no size in its header is believed before it was compared with the size of the file."""
    data: npt.NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")  # read from the disk as it is needed
    length = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or length > min(len(data) - 8, 100_000_000):  # the format's limit
        raise ValueError("its header is longer than the file")
    header = json.loads(data[8 : 8 + length].tobytes())
    metadata = header.pop("__metadata__", {})
    tensors, data = {}, data[8 + length :]
    for name, entry in header.items():
        dtype, shape, (start, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if any(type(number) is not int or number < 0 for number in (*shape, start, end)):
            raise ValueError(f"{name} has a size or place that is no whole number")
        if end > len(data) or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} is cut off")
        tensors[name] = (data[start:end].view(dtype).reshape(shape), entry["dtype"])
    return tensors, metadata


# 2. The tokenizer: byte-level BPE (Sennrich et al. 2016, Radford et al. 2019).
def byte_alphabet() -> dict[int, str]:
    """A printable character for each byte, as GPT-2 has it: a space is written as Ġ."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


# How a text is split into words. Only these patterns are run: the file may come from a stranger, and with another one a few words of text
# could take for ever. A number of the longest run of digits, {1,3}, may follow the last \p{N}.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt2_digits": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
    "gpt2_digits of older models": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "gpt4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'(?i:[sdmt]|ll|ve|re))?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'(?i:[sdmt]|ll|ve|re))?"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "llama3 and qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def python_pattern(pattern: str, classes: dict[str, str]) -> str:
    r"""The pattern for Python's `re`, which knows no \p{L} (letters), and takes other characters for spaces. Raises ValueError.

    `classes`: the characters of each class, as ranges. They come with the model: each version of Python has another version of
    Unicode, and one letter more or less gives other tokens.
    """
    is_known = re.sub(r"\{1,[1-3]\}", "", pattern) in PATTERNS.values()
    # A bracket in a class could end it.
    if not is_known or not all(re.fullmatch(r"(?:\\.|[^][\\])+", ranges, re.DOTALL) for ranges in classes.values()):
        raise ValueError(f"its words are split by another pattern than those of {', '.join(PATTERNS)}")
    bracketed = {name: f"[{ranges}]" for name, ranges in classes.items()} | {r"\S": "[^" + classes[r"\s"] + "]"}
    pieces, is_in_brackets = [], False
    for piece in re.findall(r"\\p\{\w+\}|\\.|.", pattern, re.DOTALL):
        is_in_brackets = piece != "]" and (is_in_brackets or piece == "[")
        pieces.append((classes if is_in_brackets else bracketed).get(piece, piece))
    return "".join(pieces)


class Tokenizer:
    """Text to tokens and back. `fields`: a tokenizer.json; `words`: its pattern, and the classes of characters in it."""

    def __init__(self, fields: Fields, words: Fields) -> None:
        model, added = fields["model"], fields["added_tokens"]
        self.ids = model["vocab"] | {token["content"]: token["id"] for token in added}
        # The rank of a merge is its place in the list: the most frequent pair of the training text comes first.
        self.ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
        self.takes_whole_words = model["ignore_merges"]
        self.words = re.compile(python_pattern(words["pattern"], words["classes"]))
        self.normal_form = (fields["normalizer"] or {}).get("type")
        self.characters = byte_alphabet()
        byte_of = {character: byte for byte, character in self.characters.items()}
        self.special = sorted(token["content"] for token in added if token["special"])
        # Some vocabularies have tokens that are found in a text before it is split into words. The longest counts.
        others = sorted((token["content"] for token in added if not token["special"]), key=len, reverse=True)
        self.others = re.compile(f"({'|'.join(map(re.escape, others))})") if others else None
        # What each token adds to a text, in bytes: they may be a part of a character. Special tokens add nothing.
        names = {token: name for name, token in model["vocab"].items() if name not in {*self.special, *others}}
        self.bytes_of = {token: bytes(byte_of[character] for character in name) for token, name in names.items()}
        self.bytes_of |= {self.ids[name]: name.encode() for name in others}

    def encode(self, text: str) -> list[int]:
        """The tokens of a text. None of them is special: nobody can forge a turn of a conversation by spelling its marks."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # there may be half a character
        tokens = []
        for place, part in enumerate(self.others.split(text) if self.others else [text]):
            if place % 2:  # `split` puts what it has found between the other parts
                tokens.append(self.ids[part])
                continue
            composed = unicodedata.normalize(self.normal_form, part) if self.normal_form else part
            for word in self.words.findall(composed):
                tokens += self.encode_word("".join(self.characters[byte] for byte in word.encode()))
        return tokens

    def encode_word(self, word: str) -> list[int]:
        """Merge neighbours, the pair of the lowest rank first, until no pair of neighbours has a merge."""
        if self.takes_whole_words and word in self.ids:
            return [self.ids[word]]
        parts = " ".join(["", *word, ""])  # the alphabet has no space
        while len(parts.split()) > 1:
            left, right = min(set(pairwise(parts.split())), key=lambda pair: self.ranks.get(pair, math.inf))
            if (left, right) not in self.ranks:
                break
            parts = parts.replace(f" {left} {right} ", f" {left}{right} ")
        return [self.ids[part] for part in parts.split()]

    def render(self, messages: Messages) -> list[int]:
        """The tokens of a conversation up to where the assistant writes: <|im_start|><|ROLE|><|im_sep|>TEXT<|im_end|> for each turn."""
        tokens = [self.ids["<|bos|>"]]
        for role, text in [*messages, ("assistant", "")]:
            tokens += [self.ids[name] for name in ("<|im_start|>", f"<|{role}|>", "<|im_sep|>")]
            for name in self.special:  # broken by a space, as engines that read a conversation as one string need it
                text = text.replace(name, f"{name[0]} {name[1:]}")  # noqa: PLW2901
            tokens += [*self.encode(text), self.ids["<|im_end|>"]]
        return tokens[:-1]  # the assistant writes the end


# 3. The network: a transformer with Qwen3's layers, or Llama's, which have no norms on queries and keys.
class Network:
    """Weights, and the keys and values of the tokens that were read so far. `config`: Hugging Face's config.json."""

    def __init__(self, tensors: dict[str, tuple[npt.NDArray[Any], str]], config: Fields) -> None:
        self.H, self.J, self.K = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
        self.num_layers, self.eps = config["num_hidden_layers"], config["rms_norm_eps"]
        self.max_tokens = config["max_position_embeddings"]
        self.has_norms = config["model_type"] == "qwen3"
        D, F = config["hidden_size"], config["intermediate_size"]
        shapes = {
            "input_layernorm": (D,), "post_attention_layernorm": (D,),
            "self_attn.q_proj": (self.H * self.K, D), "self_attn.o_proj": (D, self.H * self.K),
            "self_attn.k_proj": (self.J * self.K, D), "self_attn.v_proj": (self.J * self.K, D),
            "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F),
        }  # fmt: skip
        if self.has_norms:
            shapes |= {"self_attn.q_norm": (self.K,), "self_attn.k_norm": (self.K,)}

        def take(name: str, shape: tuple[int, ...]) -> Array:
            values, dtype = tensors[f"{name}.weight"]
            if values.shape != shape:
                raise ValueError(f"{name} has the shape {values.shape} and not {shape}")
            if dtype == "BF16":  # the upper half of float32: sign, exponent, and 7 of the 23 bits of the fraction
                values = (values.astype(np.uint32) << 16).view(np.float32)
            return np.ascontiguousarray(values, np.float32)

        self.embedding = take("model.embed_tokens", (config["vocab_size"], D))
        self.head = self.embedding if config["tie_word_embeddings"] else take("lm_head", self.embedding.shape)
        self.layers = [
            {name: take(f"model.layers.{layer}.{name}", shape) for name, shape in shapes.items()}
            for layer in range(self.num_layers)
        ]
        self.norm = take("model.norm", (D,))
        self.frequencies = rope_frequencies(self.K, config)

    def start(self, max_tokens: int) -> None:
        """Forget all tokens; make room for the keys and values of `max_tokens`."""
        self.num_read, self.cache = 0, np.zeros((self.num_layers, 2, self.J, max_tokens, self.K), np.float32)

    @np.errstate(all="ignore")  # `choose` checks the logits
    def read(self, tokens: list[int]) -> Array:
        """Read T tokens after those that were read so far. Returns the logits [V] of the next one."""
        start, end = self.num_read, self.num_read + len(tokens)
        angles = np.arange(start, end, dtype=np.float32)[:, None] * self.frequencies  # [T, K/2] of pairs of channels
        cos, sin = np.cos(angles), np.sin(angles)
        x = self.embedding[tokens]  # [T, D]
        for layer, cache in zip(self.layers, self.cache, strict=True):
            x = x + self.attention(layer, cache, rms_norm(x, layer["input_layernorm"], self.eps), cos, sin)
            h = rms_norm(x, layer["post_attention_layernorm"], self.eps)
            gate = h @ layer["mlp.gate_proj"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["mlp.up_proj"].T)) @ layer["mlp.down_proj"].T  # SwiGLU
        self.num_read = end
        return self.head @ rms_norm(x[-1], self.norm, self.eps)

    def attention(self, layer: dict[str, Array], cache: Array, x: Array, cos: Array, sin: Array) -> Array:
        """Each token [T, D] looks at itself and at the tokens before it, of which keys and values are in the cache."""
        start, end = self.num_read, self.num_read + len(x)
        q, k, v = ((x @ layer[f"self_attn.{n}_proj"].T).reshape(len(x), -1, self.K).swapaxes(0, 1) for n in "qkv")
        if self.has_norms:
            q, k = rms_norm(q, layer["self_attn.q_norm"], self.eps), rms_norm(k, layer["self_attn.k_norm"], self.eps)
        cache[0, :, start:end], cache[1, :, start:end] = rotate(k, cos, sin), v
        # Groups of H/J query heads share a key and value head: [J, H/J, T, K] times [J, 1, K, end].
        groups = rotate(q, cos, sin).reshape(self.J, -1, len(x), self.K)
        scores = groups @ cache[0, :, None, :end].swapaxes(-1, -2) / math.sqrt(self.K)
        is_later = np.arange(end) > np.arange(start, end)[:, None]
        mixed = softmax(np.where(is_later, -np.inf, scores)) @ cache[1, :, None, :end]
        mixed = mixed.reshape(self.H, len(x), self.K).swapaxes(0, 1).reshape(len(x), -1)
        return mixed @ layer["self_attn.o_proj"].T


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """x / rms(x) * weight."""
    return np.asarray(x / np.sqrt(np.mean(x * x, -1, keepdims=True) + np.float32(eps)) * weight, np.float32)


def softmax(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Logits to probabilities. The largest is subtracted, so that no exponential overflows."""
    weights = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def rope_frequencies(K: int, config: Fields) -> Array:
    """Rotary positions (Su et al. 2021): how far each pair of channels turns from one token to the next, in radians."""
    scaling = config.get("rope_scaling")
    radians: Array = (1 / config["rope_theta"] ** (np.arange(0, K, 2, dtype=np.float32) / K)).astype(np.float32)
    if not scaling:
        return radians
    # Llama 3 slows the pairs that turn slowly, so that positions beyond its first training look like earlier ones.
    turns = scaling["original_max_position_embeddings"] * radians / (2 * math.pi)
    kept = (turns - scaling["low_freq_factor"]) / (scaling["high_freq_factor"] - scaling["low_freq_factor"])
    kept = np.clip(kept, 0, 1)
    return np.asarray((1 - kept) * radians / scaling["factor"] + kept * radians, np.float32)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turn channels k and k + K/2 of each token by its angle: the product of a query and a key then depends on their distance."""
    low, high = np.split(x, 2, -1)
    return np.concatenate((low * cos - high * sin, high * cos + low * sin), -1)


# 4. The next token.
def choose(logits: Array, temperature: float, top_k: int, random: np.random.Generator) -> int:
    """The likeliest token at temperature 0; otherwise a random one of the top_k likeliest, by probability."""
    if not np.isfinite(logits).all():
        raise ValueError("its weights give logits that are no numbers")
    if temperature < 1e-6:  # logits that are divided by less overflow
        return int(logits.argmax())
    if top_k:
        logits = np.where(logits < np.sort(logits)[-top_k:][0], -np.inf, logits)
    return int(random.choice(len(logits), p=softmax(logits.astype(np.float64) / temperature)))


# 5. Names. A small model completes a name that it does not know to one that it knows, and answers about that one.
# Words that may stand in front of a name with a capital letter too: titles begin with articles, sentences with the others.
BEFORE = {"the", "a", "an", "in", "of", "yes", "no", "and", "but", "so", "well", "sorry"}
WORD, NAME = r"[Ua]+", r"U[Ua'’-]*+(?: U[Ua'’-]*+)++"  # in the letters of `find`; a name has two words or more


def find(pattern: str, text: str) -> list[str]:
    """The parts of a text, in lower case, that have a pattern in which U is a capital letter and a another, a digit or an accent."""
    kinds = zip(text, map(unicodedata.category, text), strict=True)
    letters = "".join("U" if kind == "Lu" else "a" if kind[0] in "LMN" else character for character, kind in kinds)
    return [text[match.start() : match.end()].casefold() for match in re.finditer(pattern, letters)]


def is_same(one: str, other: str) -> bool:
    """Whether two words are the same, or long ones of which one has a letter more: people misspell names."""
    short, long = sorted((one, other), key=len)
    one_less = [long[:place] + long[place + 1 :] for place in range(len(long)) if 6 <= len(long) <= 100]
    return one == other or short in one_less


def gives_another_name(reply: str, turns: list[str]) -> bool:
    """Whether a reply is about another name than the turns before it: one that shares a word with a turn, and none that is in one as a whole."""
    names = [[word for word in find(WORD, name) if word not in BEFORE] for name in find(NAME, reply)]
    names = [words for words in names if len(words) > 1][:16]
    asked = [set(find(WORD, turn)) for turn in "\0".join(turns)[-20_000:].split("\0")]  # of a long conversation its end
    if not any(word in turn for turn in asked for name in names for word in name):
        return False
    return not any(all(any(is_same(word, w) for w in turn) for word in name) for turn in asked for name in names)


# 6. The conversation.
# What values of a wrong kind or size in the file give, wherever they are met.
FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError, re.error)
# Control characters, and those that change the direction of text.
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Chat:
    """The model in a file. Raises ValueError, or what a value of the wrong kind gives, where the file is damaged."""

    def __init__(self, path: Path) -> None:
        tensors, metadata = read_safetensors(path)
        self.tokenizer = Tokenizer(json.loads(metadata["tokenizer.json"]), json.loads(metadata["words.json"]))
        self.network = Network(tensors, json.loads(metadata["config.json"]))
        self.tokenizer.render([("user", "")])  # the special tokens are there
        if max(self.tokenizer.ids.values()) >= len(self.network.embedding) or min(self.tokenizer.ids.values()) < 0:
            raise ValueError("its vocabulary is not that of its embedding")
        # As many tokens as the model was trained on: half of them at most for the reply, the rest for the conversation.
        self.num_new = min(256, self.network.max_tokens // 2)
        self.num_prompt = self.network.max_tokens - self.num_new
        said = json.loads(metadata.get("generation_config.json", "{}")).get("other_name_reply")
        self.other_name_reply = said if isinstance(said, str) else ""  # instead of a reply about another name

    def prompt(self, messages: Messages) -> list[int]:
        """The tokens of a conversation. What does not fit is left out: the oldest exchanges, then the beginning of the last message."""
        for place in range(0, len(messages), 2):
            tokens = self.tokenizer.render(messages[place:])
            if len(tokens) <= self.num_prompt:
                return tokens
        return tokens[:4] + tokens[4 + len(tokens) - self.num_prompt :]

    def reply(self, messages: Messages, temperature: float, top_k: int, random: np.random.Generator) -> Iterator[str]:
        """The assistant's next turn, in pieces of whole characters as they are generated."""
        tokens = self.prompt(messages)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.network.start(len(tokens) + self.num_new)
        for _ in range(self.num_new):
            token = choose(self.network.read(tokens), temperature, top_k, random)
            if token == self.tokenizer.ids["<|im_end|>"]:
                break
            yield decoder.decode(self.tokenizer.bytes_of.get(token, b""))
            tokens = [token]
        yield decoder.decode(b"", final=True)

    def checked(self, pieces: Iterator[str], messages: Messages) -> Iterator[str]:
        """The same in one piece, or what is said instead where it gives another name."""
        reply = "".join(pieces)
        yield self.other_name_reply if gives_another_name(reply, [text for _, text in messages]) else reply


def main() -> None:
    """The command. A damaged file ends it with one line."""
    parser = argparse.ArgumentParser(description="Talk with a language model.")
    parser.add_argument("-p", "--prompt", default="", help="say this, print the reply, and end")
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.safetensors"), help="its file")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the likeliest token")
    parser.add_argument("--top-k", type=int, default=0, help="draw from so many likeliest tokens; 0: from all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not 0 <= options.temperature < math.inf or options.top_k < 0 or options.seed < 0:
        parser.error("temperature, top-k and seed must not be negative")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack characters of a reply
    try:
        talk(Chat(options.model), options)
    except OSError as error:
        sys.exit(f"{options.model} cannot be read: {error.strerror}")
    except FAULTS as error:
        reason = visible(" ".join(str(error).split())[:200])  # it may quote the file
        sys.exit(f"{options.model} is damaged or no such model ({type(error).__name__}: {reason}): fetch it again")
    except (EOFError, KeyboardInterrupt):  # the end of the input, or Ctrl-C
        print()


def talk(chat: Chat, options: argparse.Namespace) -> None:
    """Ask and reply until an empty line."""
    random, messages = np.random.default_rng(options.seed), []
    for text in iter(lambda: options.prompt or input("you  ").strip(), ""):
        messages.append(("user", text))
        reply = ""
        pieces = chat.reply(messages, options.temperature, options.top_k, random)
        for piece in chat.checked(pieces, messages) if chat.other_name_reply else pieces:
            print(visible(piece), end="", flush=True)
            reply += piece
        print()
        messages.append(("assistant", reply))
        if options.prompt:
            return


def visible(text: str) -> str:
    """The text with control characters as escapes: a model could else move the cursor, or write over other lines."""
    return UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


if __name__ == "__main__":
    main()
