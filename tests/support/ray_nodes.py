"""A Ray cluster of several nodes on this machine, on loopback, as small as it can be."""

import os
from types import TracebackType
from typing import Any, Self

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray.cluster_utils import Cluster

SMALL = {
    "num_cpus": 1,
    "object_store_memory": 80 * 2**20,  # Ray takes no less than 75 MiB; nothing large is put into it
    "node_ip_address": "127.0.0.2",  # loopback; Ray takes 127.0.0.1 for the address of this machine in its network
    "include_dashboard": False,
}
NUM_TRIES = 4


class RayNodes:
    """Nodes with one CPU each."""

    def __init__(self, num: int) -> None:
        self.cluster = Cluster()
        self.others = [self.add() for _ in range(num)][1:]  # without the head, which must live
        self.address = str(self.cluster.address)

    def add(self) -> Any:
        """One more node."""
        # Ray gives a node 30 s to start, which on a loaded machine is too short, and has no setting for it.
        for _ in range(NUM_TRIES):
            try:
                return self.cluster.add_node(**SMALL)
            except Exception as error:
                if "timed out during startup" not in str(error):
                    raise
        raise TimeoutError(f"no node of Ray started in {NUM_TRIES} tries of 30 s: this machine is overloaded")

    def kill(self) -> str:
        """Kill a node as a machine dies, without notice. Returns its id."""
        node = self.others.pop(0)
        self.cluster.remove_node(node, allow_graceful=False)
        return str(node.node_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()
        self.cluster.shutdown()
