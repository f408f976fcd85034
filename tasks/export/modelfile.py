"""The Modelfile with which Ollama takes a bundle's GGUF file: the conversation format, stop tokens, how to sample.

Reads and writes nothing; gives the text. Format: https://docs.ollama.com/modelfile. The template is one of Go's text/template. With the <|bos|>
that Ollama adds it gives the tokens of `ChatTokenizer.render_prompt`, for messages without tool calls. It cannot break the names of special
tokens as the Jinja template does, since Ollama gives it no function for that: a user of Ollama can forge a turn by spelling its marks.
"""

import json

from model.config import GGUFType
from model.tokenizer.chat import ROLE_TOKENS, TURN_END, TURN_SEP, TURN_START

TURNS = "".join(
    f'{{{{ if eq .Role "{role}" }}}}{TURN_START}{token}{TURN_SEP}{{{{ .Content }}}}{TURN_END}{{{{ end }}}}'
    for role, token in ROLE_TOKENS.items()
)
TEMPLATE = f"{{{{ range .Messages }}}}{TURNS}{{{{ end }}}}{TURN_START}{ROLE_TOKENS['assistant']}{TURN_SEP}"


def modelfile(gguf: GGUFType, *, temperature: float, max_new_tokens: int, max_tokens: int, license_name: str) -> str:
    """The Modelfile for model-GGUF.gguf in the same folder."""
    # Quoted as JSON quotes: a value from a recipe cannot begin another instruction.
    return f'''# ollama create NAME -f Modelfile
FROM ./model-{gguf}.gguf
TEMPLATE """{TEMPLATE}"""
PARAMETER stop {json.dumps(TURN_END)}
PARAMETER temperature {temperature}
PARAMETER num_ctx {max_tokens}
PARAMETER num_predict {min(max_new_tokens, max_tokens)}
LICENSE {json.dumps(license_name)}
'''
