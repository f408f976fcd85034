"""What a client may send, field by field, in OpenAI's shapes, with vLLM's names for what OpenAI does not have.

Reads and writes nothing. A field that is null has its default, as in OpenAI's API. An unknown field is refused, so that no setting that was
misspelt is ignored; those that change nothing here are accepted.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Fields of OpenAI's API about accounts, storage and billing. A client library may send them.
IGNORED = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "suffix", "do_sample", "modalities", "verbosity", "reasoning_effort",
}  # fmt: skip
MAX_STOPS, MAX_STOP_CHARACTERS, MAX_BIASES, MAX_N, MAX_CHOICES = 16, 256, 1024, 64, 256
MAX_FIELDS, MAX_MESSAGES = 128, 4096

Token = Annotated[int, Field(ge=0, lt=2**31)]
# fail_fast: a list of a million wrong values would make as many errors, a kilobyte each.
Tokens = Annotated[list[Token], Field(fail_fast=True)]
Objects = Annotated[list[dict[str, Any]], Field(fail_fast=True, max_length=MAX_MESSAGES)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]


class Body(BaseModel):
    """A request: unknown fields and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if len(values) > MAX_FIELDS:  # an error for each of them
            raise ValueError(f"an object of a request has at most {MAX_FIELDS} fields, not {len(values)}")
        return {name: value for name, value in values.items() if value is not None and name not in IGNORED}


class StreamOptions(Body):
    """What a stream has besides the pieces."""

    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchema(Body):
    """A JSON schema with a name."""

    name: str = ""
    description: str = ""
    strict: bool = True
    json_schema: dict[str, Any] = Field({}, alias="schema")


class ResponseFormat(Body):
    """What the output must be."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema = Field(default_factory=JsonSchema)


class SamplingBody(Body):
    """What both kinds of completion share."""

    model: str = Field("", max_length=256)
    stream: bool = False
    # A factory: pydantic copies a model that is a default deeply, for each request.
    stream_options: StreamOptions = Field(default_factory=StreamOptions)
    n: int = Field(1, ge=1, le=MAX_N)
    temperature: float = Field(1.0, ge=0, le=10)
    top_p: float = Field(1.0, ge=0, le=1)
    top_k: int = Field(0, ge=-1, lt=2**31)
    min_p: float = Field(0.0, ge=0, le=1)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, ge=0.01, le=10)
    logit_bias: dict[Token, Annotated[float, Field(ge=-100, le=100)]] = {}
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] = []
    stop_token_ids: list[Token] = Field([], max_length=MAX_STOPS)
    ignore_eos: bool = False
    response_format: ResponseFormat = Field(default_factory=ResponseFormat)
    guided_choice: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field([], max_length=MAX_CHOICES)
    guided_json: dict[str, Any] | None = None
    return_token_ids: bool = False

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _check_biases(cls, biases: Any) -> Any:
        # pydantic counts a dict's entries after it has reported an error for each.
        if isinstance(biases, dict) and len(biases) > MAX_BIASES:
            raise ValueError(f"has {len(biases)} tokens, at most {MAX_BIASES} are allowed")
        return biases

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop


def is_tokens(value: Any) -> bool:
    """Whether a value is a list of token ids that is not empty."""
    return isinstance(value, list) and bool(value) and all(type(token) is int and 0 <= token < 2**31 for token in value)


class CompletionBody(SamplingBody):
    """POST /v1/completions."""

    prompt: Any
    max_tokens: int = Field(16, ge=0, lt=2**31)
    best_of: int = Field(0, ge=0, le=MAX_N)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=20)
    add_bos: bool = True
    use_beam_search: bool = False
    length_penalty: float = Field(1.0, ge=-10, le=10)

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: Any) -> Any:
        # By hand: pydantic would try each branch of a union on each element, and report an error for each.
        if isinstance(prompt, str) or is_tokens(prompt):
            return prompt
        if isinstance(prompt, list) and (all(isinstance(one, str) for one in prompt) or all(map(is_tokens, prompt))):
            return prompt
        raise ValueError("give a text, a list of token ids, or a list of either")


class Message(Body):
    """A turn. Content may be a list of text parts."""

    model_config = ConfigDict(extra="ignore")

    role: str = Field(max_length=64)
    content: str | Objects = ""
    tool_calls: Objects = []
    weight: Literal[0, 1] = 1  # 0: of /tokenize, an assistant's turn that is not learned


Messages = Annotated[list[Message], Field(fail_fast=True, max_length=MAX_MESSAGES)]


class ChatBody(SamplingBody):
    """POST /v1/chat/completions."""

    messages: Messages = Field(min_length=1)
    max_tokens: int = Field(256, ge=1, lt=2**31)
    max_completion_tokens: int = Field(0, ge=0, lt=2**31)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    tools: list[dict[str, Any]] = Field([], max_length=64)
    tool_choice: Literal["auto", "none", "required"] | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    server_tools: bool | Annotated[list[str], Field(fail_fast=True, max_length=64)] = False
    truncate: bool = False


class TokenizeBody(Body):
    """POST /tokenize: a text, or messages."""

    model: str = Field("", max_length=256)
    vocabulary: str = Field("", max_length=256)
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = False
    return_token_strs: bool = True


class DetokenizeBody(Body):
    """POST /detokenize."""

    model: str = Field("", max_length=256)
    tokens: Annotated[Tokens, Field(max_length=2**18)]
