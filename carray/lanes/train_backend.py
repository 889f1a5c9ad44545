"""Ray Train backend of a lane: sets up torch's process group, and requests the lane's resources.

The process group is Ray's `TorchConfig`'s, set up by Ray's own functions, which run in the ranks;
that class itself costs each controller, and the driver before it, some 2.5 CPU seconds of imports.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.util import TrainingFramework

if TYPE_CHECKING:
    from carray.lanes.mailbox_client import MailboxClient
from carray.lanes.messages import NODE_ID_LABEL
from carray.lanes.network import interface_of, network_error

TIMEOUT_SECONDS = 1800  # of a collective
SHUTDOWN_SECONDS = 30.0


@dataclass
class LaneBackendConfig(BackendConfig):  # type: ignore[misc]
    """What a lane's ranks talk over.

    Args:
        backend: `gloo` on CPUs, `nccl` on GPUs.
    """

    backend: str = "gloo"

    @property
    def backend_cls(self) -> type[LaneBackend]:
        """What sets the process group up."""
        return LaneBackend

    @property
    def train_func_context(self) -> Callable[[], AbstractContextManager[None]]:
        """What a rank's work runs in."""
        return on_its_device

    @property
    def framework(self) -> TrainingFramework:
        """What Ray notes of it."""
        return TrainingFramework.TORCH


class LaneBackend(Backend):  # type: ignore[misc]
    """Sets up and takes down the process group; runs in the controller."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: LaneBackendConfig) -> None:
        """Have every rank join the group."""
        address, port = worker_group.execute_single(0, get_address_and_port)
        size = len(worker_group)
        joined = [
            worker_group.execute_single_async(
                rank, _join, address, port, rank, size, backend_config.backend
            )
            for rank in range(size)
        ]
        ray.get(joined)

    def on_shutdown(self, worker_group: Any, backend_config: LaneBackendConfig) -> None:
        """Have every rank leave it, as far as they still can."""
        left = worker_group.execute_async(_leave, len(worker_group) > 1)
        with contextlib.suppress(ray.exceptions.GetTimeoutError):
            ray.get(left, timeout=SHUTDOWN_SECONDS)


class LanePolicy(FixedScalingPolicy):  # type: ignore[misc]
    """As many ranks as the lane has, asked for by their placement group alone.

    Ray asks its autoscaling coordinator for them as well, an actor of Ray Data's whose 3 CPU
    seconds of start the first lane would wait for; a cluster grows for a placement group too.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        """Tell nobody."""

    def _maybe_send_resource_request(self) -> None:
        """Tell nobody."""


class PlacedOnNodes(ControllerCallback):  # type: ignore[misc]
    """Has each worker group, one that is started again too, placed where it may be by then.

    Args:
        mailbox: knows the nodes.
    """

    def __init__(self, mailbox: MailboxClient) -> None:
        self._mailbox = mailbox

    def on_controller_start_worker_group(self, **asked: Any) -> dict[str, str] | None:
        """Return the labels of the nodes; None where any will do."""
        nodes = self._mailbox.nodes()
        return {NODE_ID_LABEL: f"in({','.join(nodes)})"} if nodes else None


def _join(address: str, port: int, rank: int, size: int, backend: str) -> None:
    from ray.train.torch import config
    from torch.cuda import is_available

    if size == 1 and backend == "nccl" and not is_available():
        return  # the rank says so itself, and leaves
    own = ray.util.get_node_ip_address()
    if size > 1 and (name := interface_of(own)):
        # gloo would take the address of the host's name, which /etc/hosts may map to 127.0.1.1
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    config._set_torch_distributed_env_vars()
    try:
        config._setup_torch_process_group(backend, rank, size, "env://", TIMEOUT_SECONDS)
    except RuntimeError as error:
        if said := network_error(error, own):
            raise RuntimeError(said) from None
        raise


def _leave(destroy_process_group: bool) -> None:
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group)


@contextlib.contextmanager
def on_its_device() -> Any:
    """Make the rank's GPU the current one, where it has one."""
    from ray.train.torch.config import TorchConfigContextManager

    with TorchConfigContextManager():
        yield
