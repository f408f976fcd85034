"""OpenAssistant's trees (Köpf et al. 2023, https://arxiv.org/abs/2304.07327): a prompt, replies to it, prompts after these, and so on.

A record has `message_tree_id` and `prompt`, the root; a node has `role` (prompter or assistant), `text`, `replies` and, where people ranked
it among the replies to its parent, `rank`, 0 the best. Nodes that are deleted or were rejected in their review are left out with all
that follows them.

- Conversations: every path from the root to a last reply of the assistant, better replies first. A reply that an earlier path has is
  context in the later ones (weight 0), so that each is learned once.
- Preferences: of the ranked replies to one prompt, every better one against every worse one.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.conversations.formats.parts import FormatError, Message, Values, assistant, text_of, user
from tasks.records.mistakes import shown

ROLES = {"prompter": user, "assistant": assistant}
Node = Mapping[str, Any]


def tree_conversations(value: Mapping[str, Any]) -> Values:
    """The paths to the last replies."""
    learned: set[int] = set()  # nodes, by identity
    for path in _paths(_root(value)):
        messages = [_message(node) | ({"weight": 0} if id(node) in learned else {}) for node in path]
        learned.update(id(node) for node in path if node.get("role") == "assistant")
        yield {"messages": messages}


def tree_preferences(value: Mapping[str, Any]) -> Values:
    """Pairs of ranked replies to the same prompt."""
    waiting: list[tuple[Node, ...]] = [(_root(value),)]
    while waiting:
        path = waiting.pop(0)
        replies = _replies(path[-1])
        ranked = [node for node in replies if isinstance(node.get("rank"), int) and node.get("role") == "assistant"]
        for better, worse in itertools.combinations(ranked, 2):
            if better["rank"] < worse["rank"]:
                yield {
                    "messages": [_message(node) for node in path],
                    "chosen": text_of(better, "text"),
                    "rejected": text_of(worse, "text"),
                }
        waiting += [(*path, node) for node in replies]


def tree_prompts(value: Mapping[str, Any]) -> Values:
    """The root."""
    yield {"messages": [_message(_root(value))]}


def _root(value: Mapping[str, Any]) -> Node:
    root = value.get("prompt")
    if not isinstance(root, Mapping) or root.get("role") != "prompter":
        raise FormatError(f"prompt is {shown(root)}; write the first message of a tree, of role prompter")
    return root


def _replies(node: Node) -> list[Node]:
    """The replies to a node that count, the best first; those without a rank last, in their order."""
    found = node.get("replies") or []
    if not isinstance(found, list) or not all(isinstance(reply, Mapping) for reply in found):
        raise FormatError(f"replies is {shown(found)}; write it as a list of messages")
    kept = [reply for reply in found if not reply.get("deleted") and reply.get("review_result") is not False]
    return sorted(kept, key=lambda reply: reply["rank"] if isinstance(reply.get("rank"), int) else 1 << 30)


def _paths(root: Node) -> Iterator[tuple[Node, ...]]:
    """Paths from the root to replies of the assistant after which no other one follows."""
    waiting: list[tuple[Node, ...]] = [(root,)]  # a stack: a hostile tree may be deeper than Python recurses
    while waiting:
        path = waiting.pop()
        replies = _replies(path[-1])
        if path[-1].get("role") == "assistant" and not any(_replies(reply) for reply in replies):
            yield path
        else:
            waiting += [(*path, reply) for reply in reversed(replies)]


def _message(node: Node) -> Message:
    role = node.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise FormatError(f"role is {shown(role)}; write prompter or assistant")
    return ROLES[role](text_of(node, "text"))
