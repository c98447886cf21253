"""Checks the number of files to splice in, and chooses what a file may be applied to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from comfy_worker.errors import InvalidValue, ModelMismatch
from comfy_worker.workflow.graph import Link
from comfy_worker.workflow.loaders import Fits

__all__ = ["check_count", "fits_any", "fitting_targets"]


class Target(Protocol):
    """A node that a file can be applied to: a loader of a model, or a sampler."""

    @property
    def node_id(self) -> str:
        """The node's id."""


T = TypeVar("T", bound=Target)


def check_count(key: str, count: int, maximum: int, note: str = "") -> None:
    """Refuse a longer list than any workflow needs: each entry adds nodes.

    Raises:
        InvalidValue: the list is too long.
    """
    if count > maximum:
        raise InvalidValue(
            f"send at most {maximum} {key}{note}, not {count}",
            [{"key": key, "value": count, "maximum": maximum}],
        )


def fits_any(models: Iterable[Link], file: str, fits: Fits | None) -> bool | None:
    """Return whether a file fits one of some models; None if that is not known."""
    if fits is None:
        return None
    answers = {fits(model.node_id, file) for model in models}
    if True in answers:
        return True
    return False if answers == {False} else None


def fitting_targets(
    label: str, file: str, targets: Mapping[T, Iterable[Link]], fits: Fits | None
) -> list[T]:
    """Return the targets whose models a file fits, or may fit.

    Args:
        label: what the file is, for an error: ``lora`` or ``controlnet``.
        file: relative to its model folder.
        targets: by target, the models that it uses.
        fits: whether a model accepts a file; None if nothing is known.

    Raises:
        ModelMismatch: the file fits none of the models.
    """
    models = {model for used in targets.values() for model in used}
    if fits_any(models, file, fits) is False:
        raise ModelMismatch(
            f"{label} {file!r} does not fit any model of this workflow; "
            "use one that is made for the workflow's checkpoint",
            [{"file": file, "node_id": target.node_id} for target in targets],
        )
    return [target for target, used in targets.items() if fits_any(used, file, fits) is not False]
