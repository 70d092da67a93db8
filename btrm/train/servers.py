"""vLLM on nodes of its own: the last nodes of a job serve completions, the others train; how they find each other.

Node 0 says what to serve, each serving node starts its server on a free port and says where, and node 0 lets the
trainers start when every server answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from pathlib import Path

from btrm.config import Config
from btrm.leases import check_held
from btrm.runs import StageError
from btrm.stopping import safe_point
from btrm.train.job import log_tail
from btrm.train.nodes import Failure, failure_of_another, tell, told

READY_S = 1800.0  # a large model from a slow file system
_ASK_S = 2.0
_NOT_FOR_A_SERVER = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "NNODES")


class Server(Config):
    """Where a node serves."""

    node: int
    host: str
    port: int

    @property
    def health(self) -> str:
        """The address that answers when the model is loaded."""
        return f"http://{self.host}:{self.port}/health/"


class ServerError(StageError):
    """A server that ended, or that did not answer in time; the message names its node and shows its log."""

    def __init__(self, message: str, *logs: Path) -> None:
        super().__init__(message)
        self.logs = logs


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return a server's environment: without the trainers' meeting point, which vLLM would take for its own."""
    return {name: value for name, value in environ.items() if name not in _NOT_FOR_A_SERVER}


@contextlib.contextmanager
def beside_proxies(hosts: list[str]) -> Generator[None]:
    """Have the trainers that start meanwhile reach these hosts directly, whatever proxy the cluster has."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = ",".join([*([before] if before else []), *hosts])
    try:
        yield
    finally:
        os.environ.pop("no_proxy")
        if before is not None:
            os.environ["no_proxy"] = before


def announce(stage_dir: Path, node: int, port: int) -> None:
    """Say where this node will serve."""
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    tell(stage_dir, f"server-{node}", Server(node=node, host=host, port=port).model_dump(mode="json"))


def wait_ready(stage_dir: Path, nodes: range, ready_s: float = READY_S) -> list[Server]:
    """Return the servers of these nodes when all of them answer.

    Raises ServerError where one has failed or does not answer within `ready_s`, and Stopped where asked to stop.
    """
    deadline = time.monotonic() + ready_s
    while True:
        safe_point()
        check_held()
        failure = failure_of_another(stage_dir, nodes.stop)
        if failure is not None:
            raise _failed(failure)
        servers = [_announced(stage_dir, node) for node in nodes]
        answering = [server for server in servers if server is not None and _answers(server)]
        if len(answering) == len(nodes):
            return answering
        if time.monotonic() > deadline:
            raise ServerError(_silent(servers, answering, nodes, ready_s))
        time.sleep(_ASK_S)


def _announced(stage_dir: Path, node: int) -> Server | None:
    found = told(stage_dir, f"server-{node}")
    return Server.build(json.loads(found.read_text()), str(found)) if found is not None else None


def _answers(server: Server) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # nodes of a cluster are not behind a proxy
    try:
        with direct.open(server.health, timeout=_ASK_S) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _failed(failure: Failure) -> ServerError:
    log = Path(failure.log)
    return ServerError(f"the vLLM server on node {failure.node} ended with {failure.code}; {log_tail(log)}", log)


def _silent(servers: list[Server | None], answering: list[Server], nodes: range, ready_s: float) -> str:
    waiting = [
        f"node {node} ({server.health if server else 'which has not said where it serves'})"
        for node, server in zip(nodes, servers, strict=True)
        if server not in answering
    ]
    return f"no answer within {ready_s:.0f} s from the vLLM server of {', '.join(waiting)}; see logs/server-node*.log"
