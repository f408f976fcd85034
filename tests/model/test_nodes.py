"""The nodes of a training as the environment describes them: what is read, and what is refused in one line."""

import socket

import pytest

from model.errors import UserError
from model.nodes import VARIABLES, await_first, check_first, interface_towards, this_node

TWO = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_NPROC_PER_NODE": "4", "PET_RDZV_ENDPOINT": "node-a:29511"}


@pytest.mark.parametrize("environment", [{}, {"PET_NNODES": ""}, {"PET_NNODES": "1", "PET_NODE_RANK": "x"}])
def test_one_machine_is_no_node(environment: dict[str, str]) -> None:
    assert this_node(environment) is None


def test_variables_of_torchrun_describe_a_node() -> None:
    more = {"PET_RDZV_BACKEND": "c10d", "PET_RDZV_CONF": "join_timeout=90,read_timeout=5", "PET_MAX_RESTARTS": "0"}
    node = this_node(TWO | more)
    assert node is not None and set(TWO | more) == set(VARIABLES)
    assert (node.num_nodes, node.rank, node.ranks_per_node, node.is_first) == (2, 1, 4, False)
    assert (node.endpoint, node.max_restarts, node.join_seconds) == ("node-a:29511", 0, 90)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [("node-a", "node-a:29500"), ("[fd00::1]:2000", "[fd00::1]:2000"), ("10.0.0.1:1", "10.0.0.1:1")],
)
def test_endpoints(text: str, endpoint: str) -> None:
    node = this_node(TWO | {"PET_RDZV_ENDPOINT": text})
    assert node is not None and node.endpoint == endpoint


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PET_NNODES", "1:4", "PET_NNODES=1:4: take a number from 1 on"),
        ("PET_NODE_RANK", "", "PET_NODE_RANK is not set"),
        ("PET_NODE_RANK", "2", "numbered from 0 to 1"),
        ("PET_NODE_RANK", "-1", "PET_NODE_RANK=-1"),
        ("PET_NPROC_PER_NODE", "gpu", "PET_NPROC_PER_NODE=gpu"),
        ("PET_RDZV_ENDPOINT", "", "PET_RDZV_ENDPOINT is not set"),
        ("PET_RDZV_ENDPOINT", "node-a:port", "write it as HOST:PORT"),
        ("PET_RDZV_ENDPOINT", "tcp://node-a:1", "write it as HOST:PORT"),
        ("PET_RDZV_BACKEND", "etcd-v2", "PET_RDZV_BACKEND=etcd-v2"),
        ("PET_RDZV_CONF", "join_timeout=soon", "PET_RDZV_CONF=join_timeout=soon"),
        ("PET_MAX_RESTARTS", "-1", "PET_MAX_RESTARTS=-1"),
    ],
)
def test_wrong_variable_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        this_node(TWO | {name: value})


def test_first_node_needs_an_address_of_this_machine() -> None:
    """192.0.2.1 is reserved for documentation (RFC 5737): no machine has it."""
    first = this_node(TWO | {"PET_NODE_RANK": "0", "PET_RDZV_ENDPOINT": "192.0.2.1:29500"})
    assert first is not None
    with pytest.raises(
        UserError, match=r"PET_RDZV_ENDPOINT=192\.0\.2\.1:29500: 192\.0\.2\.1 is no address of this machine"
    ):
        check_first(first, 8)
    here = first._replace(host="127.0.0.1")
    check_first(here, 8)
    assert interface_towards(here) == "lo"
    with pytest.raises(UserError, match="num_ranks=2, but PET_NNODES=2 nodes with PET_NPROC_PER_NODE=4 have 8"):
        check_first(here, 2)
    with pytest.raises(UserError, match="the first node, PET_NODE_RANK=0, runs the stage"):
        check_first(here._replace(rank=1), 8)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-node.invalid"])
def test_other_node_that_finds_no_first_one_gives_up(host: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        port = closed.getsockname()[1]
        node = this_node(TWO | {"PET_RDZV_ENDPOINT": f"{host}:{port}", "PET_RDZV_CONF": "join_timeout=0"})
        assert node is not None
        with pytest.raises(UserError, match=f"did not answer at PET_RDZV_ENDPOINT={host}:{port} within 0 s"):
            await_first(node)
