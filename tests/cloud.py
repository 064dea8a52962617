"""A Ray cluster of two machines and an S3 server, both real and both on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BUCKET = "bucket"


@contextmanager
def two_machines() -> Iterator[Any]:
    """Yield Ray's cluster of two nodes with a core each; `.address` is what --ray takes."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Yield what the environment must say for s3://bucket, empty, to lie on a server of this process."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()  # what a server before this one in the process had
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        s3().mkdir(BUCKET)
        yield environment
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def s3() -> Any:
    """The server's file system, fresh."""
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True)


def names(url: str) -> list[str]:
    """The names of what lies below an s3:// URL."""
    base = url.removeprefix("s3://")
    return [name[len(base) + 1 :] for name in s3().find(base)]


def objects(url: str) -> dict[str, bytes]:
    """What lies below an s3:// URL: names and contents."""
    system, base = s3(), url.removeprefix("s3://")
    return {name: system.cat_file(f"{base}/{name}") for name in names(url)}
