"""Knows the types of ControlNets: their names, their files, the nodes that make control maps."""

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
    """An installed ControlNet.

    Attributes:
        name: the file, relative to the folder ``controlnet``.
        fits: whether it is of the checkpoint's family; None if that is not known.
        union: whether it serves several types.
    """

    name: str
    fits: bool | None = None
    union: bool = False


@dataclass(frozen=True)
class ControlType:
    """A type of control map.

    Attributes:
        words: its names in file names, in requests and in the choices of SetUnionControlNetType.
        preprocessors: the node classes that make it from a picture, the best first.
    """

    words: tuple[str, ...]
    preprocessors: tuple[str, ...] = ()


# All preprocessors except Canny are classes of comfyui_controlnet_aux. The first that is installed
# is used.
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
    """Return the type that a client's word means (``lineart_anime`` is lineart).

    An unknown word becomes a type of its own.
    """
    plain = word.strip().casefold()
    for known in TYPES:
        if any(name in plain for name in known.words):
            return known
    return ControlType((plain,))


def choose_model(
    type: str | None,  # noqa: A002 - the request's own key
    files: Sequence[ControlNetFile],
) -> ControlNetFile:
    """Return the installed ControlNet for a type of control map.

    A file of the checkpoint's family is preferred to a file of an unknown family, and then a file
    with the type in its name to a union model, which serves any type. A file of another family is
    never chosen.

    Args:
        type: ``canny``, ``depth``, ``openpose`` ...; an unknown word is looked up as it is.
        files: the installed ControlNets.

    Raises:
        InvalidValue: the type is missing.
        ModelNotFound: no file serves the type and the family.
        Ambiguous: several files serve it equally well; the details list them.
    """
    if not type:
        raise InvalidValue(
            "controlnets needs a type, such as canny, or a model, the ControlNet's file name"
        )
    named = _named_for(type, files)
    unions = [file for file in files if file.union]
    for fits in (True, None):
        for candidates in (named, unions):
            found = [file.name for file in candidates if file.fits is fits]
            if len(found) > 1:
                raise Ambiguous(
                    f"controlnets type {type!r} fits several files: {', '.join(found)}; "
                    "name one of them by model",
                    [
                        {"given": type, "folder": FOLDERS["controlnet"], "file": name}
                        for name in found
                    ],
                )
            if found:
                return next(file for file in candidates if file.name == found[0])
    raise _no_controlnet(type, [file.name for file in named])


def _named_for(type_name: str, files: Sequence[ControlNetFile]) -> list[ControlNetFile]:
    """Return the files that have a type in their name.

    `lineart_anime` is lineart, but files with exactly that word are preferred.
    """
    words = control_type(type_name).words
    exact = type_name.strip().casefold()
    named = [file for file in files if _has_word(file, words)]
    return [file for file in named if exact in _base_name(file)] or named


def _has_word(file: ControlNetFile, words: Sequence[str]) -> bool:
    return any(word in _base_name(file) for word in words)


def _base_name(file: ControlNetFile) -> str:
    return file.name.replace("\\", "/").rpartition("/")[2].casefold()


def _no_controlnet(type_name: str, others: list[str]) -> ModelNotFound:
    word = control_type(type_name).words[0]
    folder = FOLDERS["controlnet"]
    note = f" (of another family: {', '.join(others)})" if others else ""
    return ModelNotFound(
        f"controlnets type {type_name!r} has no ControlNet for this graph's checkpoint: "
        f"put one with {word} in its name into the folder models/{folder}, or name one by model"
        f"{note}",
        [{"given": type_name, "folder": folder, "nearest": others}],
    )


def preprocessor(type: str | None, defs: NodeDefs) -> str:  # noqa: A002 - the request's own key
    """Return the installed node class that makes a type's control map from a picture.

    Raises:
        InvalidValue: the type is missing, or cannot be made from a picture.
        NodeNotInstalled: the pack with the class is not installed.
    """
    classes = control_type(type).preprocessors if type else ()
    if not classes:
        possible = ", ".join(known.words[0] for known in TYPES if known.preprocessors)
        raise InvalidValue(
            "controlnets preprocess needs a type that can be made from a picture "
            f"({possible}); for others send the control map itself as image and leave preprocess "
            "out",
            [{"key": "type", "value": type}],
        )
    for class_type in classes:
        if class_type in defs:
            return class_type
    raise NodeNotInstalled(
        f"controlnets preprocess for type {type!r} needs the node pack {PREPROCESSOR_PACK}, "
        "which is not installed; install it, or send the control map itself as image and leave "
        "preprocess out",
        [{"class_type": class_type, "pack": PREPROCESSOR_PACK} for class_type in classes],
    )
