"""Types of ControlNets: their names, the installed file for a type, the node that makes its control map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comfy_worker.errors import Ambiguous, InvalidValue, ModelNotFound, NodeNotInstalled
from comfy_worker.workflow.model_names import FOLDERS
from comfy_worker.workflow.node_defs import NodeDefs

__all__ = ["ControlNetFile", "ControlType", "choose_model", "control_type", "preprocessor"]

PREPROCESSOR_PACK = "comfyui_controlnet_aux"


@dataclass(frozen=True)
class ControlNetFile:
    """One installed ControlNet.

    Attributes:
        name: the file, relative to the folder ``controlnet``.
        fits: whether it is of the checkpoint's family; None where that is not known.
        union: whether it serves several types.
    """

    name: str
    fits: bool | None = None
    union: bool = False


@dataclass(frozen=True)
class ControlType:
    """One kind of control map.

    Attributes:
        words: how it is called in file names, in requests and in the choices of SetUnionControlNetType.
        preprocessors: the node classes that make it from a picture, the best first.
    """

    words: tuple[str, ...]
    preprocessors: tuple[str, ...] = ()


# All classes but Canny are of comfyui_controlnet_aux; the first that is installed is used.
TYPES = (
    ControlType(("canny",), ("Canny",)),
    ControlType(
        ("depth",),
        (
            "DepthAnythingV2Preprocessor",
            "DepthAnythingPreprocessor",
            "MiDaS-DepthMapPreprocessor",
            "Zoe-DepthMapPreprocessor",
        ),
    ),
    ControlType(("openpose", "pose"), ("DWPreprocessor", "OpenposePreprocessor")),
    ControlType(("lineart",), ("LineArtPreprocessor", "LineartStandardPreprocessor")),
    ControlType(("scribble",), ("ScribblePreprocessor", "FakeScribblePreprocessor")),
    ControlType(("softedge", "hed", "pidi"), ("HEDPreprocessor", "PiDiNetPreprocessor")),
    ControlType(("mlsd", "m-lsd"), ("M-LSDPreprocessor",)),
    ControlType(
        ("normal",),
        ("BAE-NormalMapPreprocessor", "DSINE-NormalMapPreprocessor", "MiDaS-NormalMapPreprocessor"),
    ),
    ControlType(
        ("seg",),
        (
            "OneFormer-ADE20K-SemSegPreprocessor",
            "UniFormer-SemSegPreprocessor",
            "SemSegPreprocessor",
        ),
    ),
    ControlType(("tile",), ("TilePreprocessor",)),
    ControlType(("inpaint", "repaint")),
    ControlType(("union",)),
)


def control_type(word: str) -> ControlType:
    """The type that a client's word means (``lineart_anime`` is lineart); one of its own where none is known."""
    plain = word.strip().casefold()
    return next(
        (known for known in TYPES if any(name in plain for name in known.words)),
        ControlType((plain,)),
    )


def choose_model(type: str | None, files: Sequence[ControlNetFile]) -> ControlNetFile:  # noqa: A002 - the request's own key
    """The installed ControlNet for a type of control map.

    One of the checkpoint's family wins over one of an unknown family; then one that has the type in its name wins
    over a union model, which serves any type. One of another family is never chosen.

    Args:
        type: ``canny``, ``depth``, ``openpose`` ...; a word that is not known is looked for as it is.
        files: the installed ControlNets.

    Returns:
        The one of ``files``.

    Raises:
        InvalidValue: no type is given.
        ModelNotFound: none serves the type and the family.
        Ambiguous: several serve it equally well; the details list them.
    """
    if not type:
        raise InvalidValue(
            "controlnets needs a type, such as canny, or a model, the ControlNet's file name"
        )
    words = control_type(type).words
    asked = type.strip().casefold()
    named = [file for file in files if any(word in _stem(file) for word in words)]
    # `lineart_anime` is lineart, but the file of that very name is the one that is meant.
    named = [file for file in named if asked in _stem(file)] or named
    for fits in (True, None):
        for found in (
            [file for file in named if file.fits is fits],
            [file for file in files if file.union and file.fits is fits],
        ):
            if len(found) > 1:
                raise Ambiguous(
                    f"controlnets type {type!r} fits several files: {', '.join(file.name for file in found)}; "
                    "name one of them by model",
                    [
                        {"given": type, "folder": FOLDERS["controlnet"], "file": file.name}
                        for file in found
                    ],
                )
            if found:
                return found[0]
    others = [file.name for file in named]
    raise ModelNotFound(
        f"controlnets type {type!r} has no ControlNet for this graph's checkpoint: put one with {words[0]} in its "
        f"name into the folder models/{FOLDERS['controlnet']}, or name one by model"
        + (f" (of another family: {', '.join(others)})" if others else ""),
        [{"given": type, "folder": FOLDERS["controlnet"], "nearest": others}],
    )


def _stem(file: ControlNetFile) -> str:
    return file.name.replace("\\", "/").rpartition("/")[2].casefold()


def preprocessor(type: str | None, defs: NodeDefs) -> str:  # noqa: A002 - the request's own key
    """The node class that makes a type's control map from a picture, of those that are installed.

    Raises:
        InvalidValue: no type is given, or none that can be made from a picture.
        NodeNotInstalled: the pack that brings it is not installed.
    """
    classes = control_type(type).preprocessors if type else ()
    if not classes:
        raise InvalidValue(
            "controlnets preprocess needs a type that can be made from a picture "
            f"({', '.join(known.words[0] for known in TYPES if known.preprocessors)}); for others send the "
            "control map itself as image and leave preprocess out",
            [{"key": "type", "value": type}],
        )
    installed = [class_type for class_type in classes if class_type in defs]
    if not installed:
        raise NodeNotInstalled(
            f"controlnets preprocess for type {type!r} needs the node pack {PREPROCESSOR_PACK}, which is not "
            "installed; install it, or send the control map itself as image and leave preprocess out",
            [{"class_type": class_type, "pack": PREPROCESSOR_PACK} for class_type in classes],
        )
    return installed[0]
