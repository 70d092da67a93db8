"""vLLM for grpo: beside the trainers, or on nodes of its own. Also the entry point of such a node's server.

python -m btrm.train.serve REQUEST PORT
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from btrm.checkpoints import base_identity
from btrm.config import ConfigError
from btrm.publishing import write_json
from btrm.runs import StageRun
from btrm.train.launch import Job, serving
from btrm.train.options import Order, read_order
from btrm.train.rank import die_with_parent
from btrm.train.swift_options import Options, to_argv

if TYPE_CHECKING:
    from btrm.train.grpo import GrpoConfig

SERVER_ORDER = "server.json"


def check_vllm(config: GrpoConfig, run: StageRun) -> None:
    """Refuse servers without vLLM, GPUs or nodes to train on, and a model split over what is no part of a node."""
    problems: list[str] = []
    nodes, gpus = run.resources.nodes, run.resources.gpus
    if config.vllm_mode == "server" and not config.use_vllm:
        problems.append("vllm_mode=server: needs use_vllm")
    if config.server_nodes and not gpus:
        problems.append("vllm_mode=server: needs GPUs, and none are asked for")
    if config.server_nodes >= nodes:
        problems.append(
            f"vllm_server_nodes={config.server_nodes}: of {nodes} node(s) none is left to train; ask for more"
        )
    if config.use_vllm and gpus % config.vllm_tensor_parallel:
        problems.append(f"vllm_tensor_parallel={config.vllm_tensor_parallel}: must divide the {gpus} GPUs of a node")
    if problems:
        raise ConfigError("\n".join(problems))


def trainer_options(config: GrpoConfig) -> Options:
    """Return the trainer's own options for vLLM."""
    if config.server_nodes:
        return {"vllm_mode": "server"}  # the servers' addresses follow when they answer
    return {
        "vllm_mode": "colocate",
        "vllm_tensor_parallel_size": config.vllm_tensor_parallel,
        "vllm_gpu_memory_utilization": config.vllm_gpu_memory_utilization,
    }


def server_options(config: GrpoConfig, run: StageRun) -> Options:
    """Return the rollout server's options: as many copies of the model as a node's GPUs hold."""
    options: Options = {
        "model": run.model(config.model),
        "use_hf": True,
        "torch_dtype": config.dtype,
        "host": "0.0.0.0",
        "vllm_tensor_parallel_size": config.vllm_tensor_parallel,
        "vllm_data_parallel_size": run.resources.gpus // config.vllm_tensor_parallel,
        "vllm_gpu_memory_utilization": config.vllm_gpu_memory_utilization,
        "vllm_max_model_len": config.max_length + config.max_completion_length,
    }
    named = {"model_type": config.model_type, "template": config.template}
    return options | {name: value for name, value in named.items() if value is not None}


@contextlib.contextmanager
def servers(config: GrpoConfig, run: StageRun) -> Generator[Options]:
    """Start the servers, if there are any, and yield what the trainer must be told once they answer."""
    if not config.server_nodes:
        yield {}
        return
    order = Order(
        argv=to_argv(server_options(config, run), {}),
        directory=str(run.dir),
        base=base_identity(run.model(config.model)),
        config=config.model_dump(mode="json"),
        world_size=1,
    )
    request, nodes = run.dir / SERVER_ORDER, run.resources.nodes
    write_json(request, order.model_dump(mode="json"))
    job = Job("btrm.train.serve", request, 1, False, run.dir / "logs" / "server.log", None)
    with serving(job, range(nodes - config.server_nodes, nodes)) as ready:
        yield {
            "vllm_server_host": [server.host for server in ready],
            "vllm_server_port": [str(server.port) for server in ready],
        }


if __name__ == "__main__":
    die_with_parent()  # SIGTERM stays blocked: the server answers until the trainers have saved their last step
    from btrm.train.swift_adapter import serve

    serve(read_order(Path(sys.argv[1])), int(sys.argv[2]))
