"""A question put to a tiny model, with measures whose answer is known; and what an audit must leave as it was."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from audits import test_deletion as deletion
from audits.ask import Ask, Premise
from audits.journal import Log
from audits.policy import load_policy
from camcore.cam import METHODS
from camcore.engine import Terms
from camcore.images import Batch
from camcore.subject import Classifier
from camcore.verdict import Verdict
from tests.tiny import GapNet, numbered_dataset, tiny_subject

QUESTION = deletion.BEATS_RANDOM
BARELY = replace(QUESTION, bounds=(-20.0, 20.0))  # 0.9 decides nothing on so wide a scale


def tiny() -> Classifier:
    return tiny_subject(GapNet(), "conv2")


def asking(
    subject: Classifier,
    folder: Path,
    verdicts: list[Verdict],
    *,
    resume: bool = False,
    undefined: Mapping[str, str] | None = None,
) -> Ask:
    return Ask(
        subject=subject,
        dataset=numbered_dataset(20, size=16),
        cams={"hirescam": METHODS["hirescam"], "gradcam": METHODS["gradcam"]},
        undefined=undefined or {},
        policy=load_policy(None, profile="smoke"),
        terms=Terms(level=0.95, budget=20, seed=0, batch_size=6),
        log=Log(folder, "master", run="this", resume=resume),
        profile="smoke",
        rerun="pytest",
        node_id="audits/test_x.py::test_y",
        conclude=lambda verdict, _waived, _beside: verdicts.append(verdict),
    )


def constant(subject: Classifier, batch: Batch, *, value: float = 0.9, **_given: object) -> Mapping[str, Tensor]:
    return {"value": subject.logits(batch.images)[:, 0].detach() * 0 + value}


def nothing(*_args: object, **_given: object) -> tuple[()]:
    return ()


def put(ask: Ask, *, value: float = 0.9, premise: Premise | None = None, apart: str = "") -> None:
    measure = partial(constant, value=value)
    ask(QUESTION, "hirescam", measure=measure, column="value", show=nothing, version="1", premise=premise, apart=apart)


def state_of(module: nn.Module) -> list[object]:
    """All that an audit must leave as it was, but for the weights."""
    hooks = [len(group) for each in module.modules() for name, group in vars(each).items() if name.endswith("_hooks")]
    gradients = [parameter.grad is None for parameter in module.parameters()]
    wanted = [parameter.requires_grad for parameter in module.parameters()]
    return [hooks, gradients, wanted, [each.training for each in module.modules()]]


def refuse(problem: Exception) -> Premise:
    def premise(_images: Tensor) -> Mapping[str, object]:
        raise problem

    return premise
