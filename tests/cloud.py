"""A Ray cluster of two machines and an S3 server, both real and both on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import surroundings

BUCKET = "bucket"


MACHINES = """if True:
    import sys
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = None
    print(cluster.address, flush=True)
    for command in map(str.strip, sys.stdin):
        if command == "add":
            second = cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
        else:
            cluster.remove_node(second, allow_graceful=False)
        print(command, flush=True)
    cluster.shutdown()
"""
"""Holds the cluster until stdin ends. It runs warm, and so do the workers that Ray starts."""


class Machines:
    """A Ray cluster of two nodes with a core each; `address` is what --ray takes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer()

    def add(self) -> None:
        """Add the second node."""
        self._do("add")

    def lose(self) -> None:
        """End the second node as a power cut would."""
        self._do("lose")

    def _do(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        assert self._answer() == command

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@contextmanager
def two_machines(folder: Path) -> Iterator[Machines]:
    """Yield a Ray cluster of two nodes, held by a process that runs in `folder`."""
    environment = surroundings() | {"RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        ["python", "-c", MACHINES],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        machines = Machines(process)
        machines.add()
        yield machines  # then `with` closes stdin


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
