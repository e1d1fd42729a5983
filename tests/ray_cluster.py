"""A Ray cluster of two nodes on this machine, one of which may be lost."""

import os
import threading
import time
from contextlib import contextmanager

import pytest

_STORE = 80 * 2**20


class TwoNodes:
    """A running cluster, to which this process is connected.

    Args:
        cluster (`ray.cluster_utils.Cluster`): The cluster.
        other (`object`): The node that is not the head.
    """

    def __init__(self, cluster, other):
        self.cluster, self.other = cluster, other
        self.lost = []

    def lose_one_when(self, is_time):
        """Kill the other node once `is_time()` is true; `lost` then holds how many processors were idle."""

        def lose():
            import ray

            while not is_time():
                time.sleep(0.02)
            idle = ray.available_resources().get("CPU", 0)
            self.cluster.remove_node(self.other, allow_graceful=False)
            self.lost.append(idle)

        self._thread = threading.Thread(target=lose, daemon=True)
        self._thread.start()

    def count_left(self):
        """Wait for the node to be lost, and return how many are left."""
        import ray

        self._thread.join(60)
        deadline = time.monotonic() + 60
        while (left := sum(node["Alive"] for node in ray.nodes())) > 1 and time.monotonic() < deadline:
            time.sleep(0.2)
        return left


@contextmanager
def two_nodes(*modules, num_cpus=1):
    """Start a cluster whose processes import from the folders of some test modules too."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    folders = [*modules, *filter(None, [before])]
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    node = {"num_cpus": num_cpus, "object_store_memory": _STORE}
    cluster = Cluster(initialize_head=True, head_node_args=node, connect=False)
    try:
        other = cluster.add_node(**node)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        yield TwoNodes(cluster, other)
    finally:
        ray.shutdown()
        cluster.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
