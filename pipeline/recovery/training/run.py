"""Training a pruned model in place, alone or on all ranks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from pipeline.distributed.ranks import Group
from pipeline.errors import StageError
from pipeline.files import Json
from pipeline.models.loading import LiveModel
from pipeline.models.prunable import PrunableModel
from pipeline.models.variants import Variant
from pipeline.recovery.base import Recovering
from pipeline.recovery.training.adapters import training
from pipeline.recovery.training.loop import Job, Loop
from pipeline.recovery.training.settings import TrainingConfig
from pipeline.recovery.training.team import Team, TeamError

LARGE = 10**9
"""Parameters from which on a GPU keeps no activations."""


def train(recovering: Recovering, job: Job) -> dict[str, Json]:
    """Train ``live.at(variant)`` in place, on all ranks; what to know of it.

    The state with the lowest mean log-perplexity of the held-out texts is the result, the first
    one if learning only harmed, and the last one where there is no held-out text. A kill at any
    moment loses what came after the last checkpoint. Raises ``StageError``.
    """
    live, variant, leader = recovering.live, recovering.variant, recovering.leader
    device = live.at(variant).device.type

    def mine(group: Group | None) -> dict[str, Json] | TeamError:
        return _trained(Team(group), live, variant, job, recovering)

    try:
        outcome = (
            leader.together(device, mine, _follow, live, variant, job) if leader else mine(None)
        )
        return _checked(outcome, job.name)
    except BaseException:
        live.forget()
        raise


def _checked(outcome: dict[str, Json] | TeamError, name: str) -> dict[str, Json]:
    if isinstance(outcome, dict):
        return outcome
    if isinstance(outcome.error, torch.OutOfMemoryError):
        raise StageError(
            f"memory ran out; use recover.{name}.activation_checkpointing=true, shorter "
            "sequences, adapters in the place of all weights, or a larger device"
        ) from outcome.error
    raise outcome.error


def _follow(group: Group, live: LiveModel, variant: Variant, job: Job) -> None:
    _trained(Team(group), live, variant, job, None)


def _trained(
    team: Team, live: LiveModel, variant: Variant, job: Job, host: Recovering | None
) -> dict[str, Json] | TeamError:
    """This rank's part; ``host`` is there on rank 0. An error that all ranks know is returned."""
    with ExitStack() as stack:

        def opened() -> Loop:
            model = live.at(variant)
            stack.enter_context(_prepared(model, job.settings))
            loss_of = job.objective.open(live, model)
            parameters = stack.enter_context(training(model, job.trained))
            return Loop(job, model, parameters, loss_of, team, host)

        try:
            return team.alike(opened).run()
        except TeamError as error:
            return error


@contextmanager
def _prepared(model: PrunableModel, settings: TrainingConfig) -> Iterator[None]:
    """Activations kept or not, products in TF32, and random numbers that are nobody else's."""
    on_gpu = model.device.type == "cuda"
    recomputes = settings.activation_checkpointing
    if recomputes is None:
        recomputes = on_gpu and sum(p.numel() for p in model.model.parameters()) > LARGE
    precision = torch.get_float32_matmul_precision()
    with torch.random.fork_rng([model.device] if on_gpu else []):
        try:
            torch.set_float32_matmul_precision("high" if on_gpu else precision)
            for block in model.blocks:
                block.recomputes = recomputes
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            for block in model.blocks:
                block.recomputes = False
