"""Open Ray's own test cluster of two nodes, in a process of its own.

Ray reads its token's settings when it is imported, so a test cannot open it in its own process.
Prints the cluster's address and the process of the second node's raylet; removes that node at the
first line of standard input, and ends with its end.
"""

from __future__ import annotations

import sys
from typing import Any

from ray.cluster_utils import Cluster


def main() -> None:
    """Open the cluster, remove its second node when asked to, close it."""
    node: dict[str, Any] = {
        "num_cpus": 1,
        "object_store_memory": 2**27,
    }
    cluster: Any = Cluster(
        initialize_head=True, head_node_args={**node, "include_dashboard": False}
    )
    try:
        second = cluster.add_node(**node)
        [raylet] = second.all_processes["raylet"]
        print("cluster", cluster.address, raylet.process.pid, flush=True)
        if sys.stdin.readline():
            cluster.remove_node(second, allow_graceful=False)
            print("removed", flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
