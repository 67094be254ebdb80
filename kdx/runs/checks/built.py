"""Builds the networks of a run with initial weights and checks each of them, as a part of the dry run."""

from functools import partial

from torch import nn

from kdx.config.schema import Node, RunConfig
from kdx.core.errors import UserError
from kdx.core.seed import seeded
from kdx.runs.build import build_network, untrained
from kdx.runs.checks.networks import Data, check_network, check_unshared, is_own, short_reason
from kdx.runs.checks.notices import notices
from kdx.runs.checks.travel import check_travel
from kdx.runs.ensemble_config import each_teacher


def build_checked(config: RunConfig, data: Data) -> dict[str, nn.Module]:
    """Student and teachers by key in the config, with initial weights; peers of kdx's own are left out.

    Raises:
        UserError: A network cannot be built, or fails a check.
    """
    students = {"student.net": config.student.net}
    teachers = {teacher_key(name): own.teacher.net for name, own in each_teacher(config).items() if own.teacher}
    peers = {f"method.peers[{i}]": node for i, node in enumerate(config.method.get("peers") or ())}
    peers = {key: node for key, node in peers.items() if not node["_target_"].startswith("kdx.models.")}
    nodes = {**students, **teachers, **peers}
    nets = {key: _build(node, key, 0, data) for key, node in nodes.items()}
    # before any network is frozen, which would freeze a shared one
    check_unshared(nets)
    for key, net in nets.items():
        learns = key not in teachers
        with seeded(0, "inputs"):
            batch = data.batch()
        notices(check_network(net, key, data, batch, learns))
        if is_own(net):
            notices(check_travel(net, key, batch, learns, partial(_build, nodes[key], key, 1, data)))
        net.train()
    return nets


def teacher_key(member: str) -> str:
    """Key in the config of a teacher's network; the name of a single teacher is ""."""
    return f"teacher.members.{member}.net" if member else "teacher.net"


def _build(node: Node, key: str, seed: int, data: Data) -> nn.Module:
    try:
        return build_network(untrained(node), seed, lambda: data.inputs)
    except (UserError, ValueError) as error:
        raise UserError(f"{key}: {error}") from None
    except Exception as error:
        raise UserError(f"{key}: {short_reason(error)}") from error
