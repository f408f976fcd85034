"""The conversation format as a Jinja template, for `apply_chat_template` of transformers and for other engines.

Reads and writes nothing. It renders what `ChatTokenizer.render` renders, as a string. What the assistant has to write is in
`generation` tags, from which transformers makes the loss mask (`return_assistant_tokens_mask`).
"""

import json
import re

from model.tokenizer.chat import (
    BOS,
    ROLE_TOKENS,
    ROLES,
    TOOL_END,
    TOOL_START,
    TURN_END,
    TURN_SEP,
    TURN_START,
    ChatTokenizer,
    broken,
)

PARTS = (  # one line: the engines' Jinja would render line breaks between the tags
    "{% macro plain(text) %}{% set made = namespace(text=text) %}"
    "{% for pair in NAMES %}{% set made.text = made.text | replace(pair[0], pair[1]) %}{% endfor %}{{ made.text }}{% endmacro %}",
    "{{ BOS }}",
    "{% for message in messages %}{% set role = message['role'] %}",
    "{% if role not in ROLES %}"
    "{{ raise_exception('message role ' ~ role ~ ' is unknown; use one of ' ~ (ROLES | join(', '))) }}{% endif %}",
    "{% set calls = (message['tool_calls'] if message['tool_calls'] is defined else none) or [] %}",
    "{% if calls and role != 'assistant' %}{{ raise_exception('only the assistant calls tools') }}{% endif %}",
    "{% set content = '' if calls and message['content'] is not string and not message['content'] else message['content'] %}",
    "{% if content is not string %}{{ raise_exception('the content of a message must be a string') }}{% endif %}",
    "{% set turn = namespace(text=plain(content)) %}",
    "{% for call in calls %}{% set function = call['function'] if call['function'] is defined else call %}"
    "{% set arguments = function['arguments'] %}"
    "{% set arguments = arguments if arguments is string else arguments | tojson %}"
    "{% set turn.text = turn.text ~ TOOL_START ~ plain(function['name']) ~ TURN_SEP ~ plain(arguments) ~ TOOL_END %}{% endfor %}",
    "{{ TURN_START ~ STARTS[role] ~ TURN_SEP }}",
    "{% if role == 'assistant' and (message['weight'] is not defined or message['weight'] != 0) %}"
    "{% generation %}{{ turn.text ~ TURN_END }}{% endgeneration %}{% else %}{{ turn.text ~ TURN_END }}{% endif %}",
    "{% endfor %}",
    "{% if add_generation_prompt %}{{ TURN_START ~ STARTS['assistant'] ~ TURN_SEP }}{% endif %}",
)


def chat_template(tokenizer: ChatTokenizer, *, with_generation: bool = True) -> str:
    """The template for a tokenizer. Names of all its special tokens are broken in texts, those of a foreign vocabulary too.

    Without its generation tags it is plain Jinja: the tags are an extension of transformers, which other engines may not know.
    """
    constants = {
        "BOS": BOS,
        "TURN_START": TURN_START,
        "TURN_SEP": TURN_SEP,
        "TURN_END": TURN_END,
        "TOOL_START": TOOL_START,
        "TOOL_END": TOOL_END,
        "ROLES": ROLES,
        "STARTS": ROLE_TOKENS,
        "NAMES": [(name, broken(name)) for name in tokenizer.special_names],
    }
    # A value in JSON is one in Jinja.
    values = "".join(f"{{% set {name} = {json.dumps(value)} %}}" for name, value in constants.items())
    template = values + "".join(PARTS)
    return template if with_generation else re.sub(r"\{% (end)?generation %\}", "", template)
