"""The agent of a node: runs this node's ranks of a training over several nodes, and runs them again after a failure.

    python -m model.training.agent [--lease FILE TOKEN] MODULE RUN_FILE    on the first node, as a rank is started elsewhere
    python -m model.training.agent                                        on the others

Reads the variables of model/nodes.py. On the first node it opens the rendezvous and puts there what the others need: the module, and the
run file with its text. It then is torchrun's agent (torch.distributed.elastic), as on the others. Where a rank fails or a node is lost, all
ranks end, and start again when all nodes have met once more: training resumes from its newest checkpoint.

The rendezvous lives as long as the first node's agent, and that as long as its stage: without it the others end their ranks.

What was seen in torch 2.13, and is met here:

- The nodes are numbered in the order of their addresses as texts, not of their ranks in the environment. Every node but the first one
  is therefore given a name for its address that sorts by its rank, and behind all addresses: only the first node's is connected to.
- The agents' own store is shared with the ranks unless TORCH_DISABLE_SHARE_RDZV_TCP_STORE is set. A node that comes later then waits
  for its address in vain, since the first node writes it in the first round alone.
- An agent that has finished still asks the rendezvous to close: the first node's stays until the others have.
- gloo takes the interface that the machine's name resolves to, often a loopback one. Here it is the one that leads to the first node.
"""

import os
import secrets
import sys
import time
from datetime import timedelta
from pathlib import Path

import pydantic
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousTimeoutError,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from model.errors import WRONG_USE, UserError
from model.files import replacing
from model.nodes import BACKEND, Node, interface_towards, this_node
from model.processes import LeaseFile
from model.training.ranks import record_error

RUN, ENDED = "crawl2chat/run", "crawl2chat/ended"  # keys of the rendezvous' store
END_SECONDS = 30.0


class SharedRun(pydantic.BaseModel):
    """What the first node shares with the others: the same path holds the run file on each."""

    module: str
    run_file: str
    settings: str  # the text of the run file
    lease: tuple[str, str] | None  # file and token
    run_id: str  # of torch's rendezvous

    def is_visible(self) -> bool:
        """Whether this node sees the first one's files, and the locks on them."""
        path = Path(self.run_file)
        if not path.is_file() or path.read_text(encoding="utf-8") != self.settings:
            return False
        return self.lease is None or LeaseFile(Path(self.lease[0]), self.lease[1]).is_held()


def lead(node: Node, run: SharedRun) -> None:
    """Open the rendezvous and run the first node's ranks. Raises UserError where the nodes do not meet."""
    try:
        # The agent's own store on the same port, in the same process, is then the same: multi_tenant.
        store = TCPStore(
            node.host,
            node.port,
            is_master=True,
            wait_for_workers=False,
            multi_tenant=True,
            timeout=timedelta(seconds=60),
        )
    except RuntimeError as error:
        raise UserError(
            f"PET_RDZV_ENDPOINT={node.endpoint}: this machine cannot listen there ({_sentence(error)}): take a port that is free"
        ) from None
    store.set(RUN, run.model_dump_json())
    print(f"waiting up to {node.join_seconds} s for {node.num_nodes} nodes at {node.endpoint}", flush=True)
    run_ranks(node, run)
    deadline = time.monotonic() + END_SECONDS
    while store.add(ENDED, 0) < node.num_nodes - 1 and time.monotonic() < deadline:
        time.sleep(0.1)


def follow(node: Node) -> None:
    """Run this node's ranks for the first one, which listens.

    Raises UserError where something else answers, RuntimeError where that node is lost.
    """
    try:
        store = TCPStore(node.host, node.port, is_master=False, timeout=timedelta(seconds=60))
        run = SharedRun.model_validate_json(store.get(RUN))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"what answers at PET_RDZV_ENDPOINT={node.endpoint} is no first node of a training ({_sentence(error)})"
        ) from None
    if not run.is_visible():
        # Then its ranks get the rest through model/training/node_files.py, and end with the first node alone, not with its lease.
        run = run.model_copy(update={"lease": None})
        Path(run.run_file).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(run.run_file)) as temporary:
            temporary.write_text(run.settings, encoding="utf-8")
    run_ranks(node, run)
    store.add(ENDED, 1)


def run_ranks(node: Node, run: SharedRun) -> None:
    """Run this node's ranks to the end of the training."""
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if interface := interface_towards(node):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    config = LaunchConfig(
        # As many as the run needs and no fewer: its batch is shared evenly over a fixed number of ranks.
        min_nodes=node.num_nodes,
        max_nodes=node.num_nodes,
        nproc_per_node=node.ranks_per_node,
        run_id=run.run_id,
        rdzv_backend=BACKEND,
        rdzv_endpoint=node.endpoint,
        rdzv_configs={**node.settings, "is_host": str(int(node.is_first))},
        max_restarts=node.max_restarts,
        # "~" comes after letters and digits.
        local_addr=node.host if node.is_first else f"~{node.rank:06d}",
    )
    lease = ["--lease", *run.lease] if run.lease else []
    try:
        # -u: a rank that is killed has printed what it had to.
        elastic_launch(config, sys.executable)("-u", "-m", "model.training.ranks", *lease, run.module, run.run_file)
    except RendezvousTimeoutError:
        raise UserError(
            f"{node.num_nodes} nodes did not meet at PET_RDZV_ENDPOINT={node.endpoint} within {node.join_seconds} s: start the same command "
            "on each, with another PET_NODE_RANK"
        ) from None
    except (RendezvousConnectionError, RendezvousClosedError):
        raise RuntimeError("the training has ended on another node: its log says why") from None


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def main() -> None:
    """Lead or follow, as the environment says."""
    node, arguments = this_node(), sys.argv[1:]
    assert node is not None, "one machine needs no agent of nodes"
    try:
        if not arguments:
            follow(node)
            return
        lease = None
        if arguments[0] == "--lease":
            lease, arguments = (arguments[1], arguments[2]), arguments[3:]
        module, run_file = arguments
        settings = Path(run_file).read_text(encoding="utf-8")
        run_id = secrets.token_hex(8)
        lead(node, SharedRun(module=module, run_file=run_file, settings=settings, lease=lease, run_id=run_id))
    except UserError as error:
        # One line for whoever started this process, and no traceback.
        record_error(error)
        sys.exit(WRONG_USE)


if __name__ == "__main__":
    main()
