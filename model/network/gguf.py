"""A model in one file of the GGUF format, which llama.cpp and what is built on it (Ollama, LM Studio) load.

Reads weights by name, their configuration and a tokenizer.json; writes one file with all of them and the chat template.
The network is llama.cpp's `qwen3` or, where queries and keys are not normalized, its `llama`. The format is that of
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names of tensors and fields are the ones that llama.cpp's converter from Hugging
Face's layout writes. What llama.cpp would compute differently raises NoEquivalentError, before anything is written.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.config import GGUFType, ModelConfig
from model.files import replacing
from model.network.huggingface import check_fits_float16
from model.network.transformer import frequencies
from model.tokenizer.chat import ChatTokenizer
from model.tokenizer.llama_cpp import NoEquivalentError, Vocabulary
from model.tokenizer.template import chat_template

if TYPE_CHECKING:
    from gguf import GGUFWriter

BLOCK = 32  # weights of a row that share a scale in q8_0
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def check_network(config: ModelConfig) -> None:
    """Raises NoEquivalentError for a network that llama.cpp does not compute."""
    # Its llama reads the factors of Llama 3's scaling from a tensor, its qwen3 does not.
    if config.rope_scaling and config.normalize_qk:
        raise NoEquivalentError("llama.cpp's qwen3 has no scaling of RoPE as Llama 3 has it")


def write_gguf(
    path: Path,
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    vocabulary: Vocabulary,
    tokenizer: ChatTokenizer,
    *,
    matrices: GGUFType,
    max_tokens: int,
    fields: Mapping[str, str],
) -> None:
    """Write a language model for sequences of up to max_tokens. `fields`: more strings of the header, such as `general.name`.

    Vectors are float32 in all files. Raises NoEquivalentError for a network that llama.cpp does not compute, UserError where a weight is too large for float16.
    """
    # Here, since no other command writes such a file.
    from gguf import GGUFWriter

    check_network(config)
    with replacing(path) as temporary:
        writer = GGUFWriter(temporary, "qwen3" if config.normalize_qk else "llama")
        _add_network(writer, config, max_tokens)
        _add_vocabulary(writer, vocabulary, tokenizer)
        for name, value in fields.items():
            writer.add_string(name, value)
        for name, tensor in tensors(weights, config):
            _add_tensor(writer, name, tensor, matrices)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _add_network(writer: "GGUFWriter", config: ModelConfig, max_tokens: int) -> None:
    writer.add_context_length(max_tokens)
    writer.add_block_count(config.num_layers)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.ff_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    # Without these llama.cpp takes D / H.
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_vocabulary(writer: "GGUFWriter", vocabulary: Vocabulary, tokenizer: ChatTokenizer) -> None:
    writer.add_tokenizer_model("gpt2")  # llama.cpp's name for byte-level BPE
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.turn_end)
    writer.add_pad_token_id(tokenizer.pad)
    # As a document of pretraining begins. llama.cpp takes the <|bos|> of the chat template away before it adds its own.
    writer.add_add_bos_token(True)
    writer.add_chat_template(chat_template(tokenizer, with_generation=False))


def tensors(weights: Mapping[str, Tensor], config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Tensors by llama.cpp's names, as it computes with them."""
    for name, tensor in weights.items():
        # A head that is tied to the embedding may be stored as well; without one llama.cpp takes the embedding.
        if name == "lm_head.weight" and config.tie_embeddings:
            continue
        # Its llama pairs neighbouring channels in RoPE, as Meta's files do; its qwen3 the two halves, as the layout here does.
        num_heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(name.split(".")[-2], 0)
        is_interleaved = num_heads and not config.normalize_qk
        yield _their_name(name), interleaved(tensor, num_heads) if is_interleaved else tensor
    if config.rope_scaling:
        # What each frequency is divided by.
        unscaled = config.model_copy(update={"rope_scaling": None})
        cpu = torch.device("cpu")
        yield "rope_freqs.weight", frequencies(unscaled, cpu) / frequencies(config, cpu)


def interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """A projection [heads K, D] whose channels k and k + K/2 of each head become neighbours."""
    width, num_inputs = weight.shape
    halves = weight.reshape(num_heads, 2, width // num_heads // 2, num_inputs)
    return halves.transpose(1, 2).reshape(width, num_inputs)


def _their_name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    _, _, layer, *module, parameter = name.split(".")
    return f"blk.{layer}.{LAYER_NAMES['.'.join(module)]}.{parameter}"


def _add_tensor(writer: "GGUFWriter", name: str, tensor: Tensor, matrices: GGUFType) -> None:
    from gguf import GGMLQuantizationType, quantize

    values = tensor.float().numpy()
    if tensor.dim() == 1:
        kind: GGUFType = "f32"
    elif matrices == "q8_0" and values.shape[-1] % BLOCK:
        kind = "f16"  # as llama.cpp's own converter does
    else:
        kind = matrices
    if kind == "f16":
        check_fits_float16(name, tensor)
    quantization = GGMLQuantizationType[kind.upper()]
    writer.add_tensor(name, quantize(values, quantization), raw_dtype=quantization)
