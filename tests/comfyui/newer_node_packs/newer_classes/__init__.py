"""Declarations of node classes that are newer than ComfyUI 0.33, for its frontend and its validation.

They have the names, types, defaults and limits of the inputs and outputs, and no code: ComfyUI 0.33
cannot run the models that these classes belong to. TextEncodeQwenImage21 and QwenImage21Cache follow
ComfyUI's own ``comfy_extras/nodes_qwen.py``. ReferenceMultiLatent follows the official template
image_flux3_klein_distilled_image_edit, which shows its inputs but not their limits.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import ComfyExtension, io

REFERENCES = [f"image_{number}" for number in range(1, 17)]


class Declaration(io.ComfyNode):  # type: ignore[misc]  # ComfyUI is not here to be read
    """A class that has inputs and outputs only."""

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        """Refuse to run: ComfyUI 0.33 has no code for this class."""
        raise NotImplementedError(f"{cls.__name__} needs a newer ComfyUI")


class TextEncodeQwenImage21(Declaration):
    """Encodes the prompts and the reference images of Qwen-Image 2.1."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs."""
        references = io.Autogrow.TemplateNames(io.Image.Input("image"), names=REFERENCES, min=0)
        return io.Schema(
            node_id="TextEncodeQwenImage21",
            display_name="Text Encode Qwen Image 2.1",
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                io.String.Input("negative_prompt", multiline=True, dynamic_prompts=True),
                io.Vae.Input("vae", optional=True),
                io.Int.Input("resolution", default=1024, min=0, max=4096, step=32),
                io.Autogrow.Input("images", template=references),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
            ],
        )


class QwenImage21Cache(Declaration):
    """Sets where Qwen-Image 2.1 keeps what it computed of the prompt and the references."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs."""
        devices = ["auto", "gpu", "cpu", "off"]
        return io.Schema(
            node_id="QwenImage21Cache",
            display_name="Qwen Image 2.1 Cache",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("device", options=devices, default="auto"),
                io.Combo.Input("dtype", options=["default", "int8", "int4"], default="default"),
            ],
            outputs=[io.Model.Output()],
        )


class ReferenceMultiLatent(Declaration):
    """Adds the reference images of FLUX 3 to both conditionings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs."""
        references = io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="image", min=0)
        resize = io.DynamicCombo.Option("resize", [io.Float.Input("megapixels", default=1.0)])
        return io.Schema(
            node_id="ReferenceMultiLatent",
            display_name="Reference Multi Latent",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative", optional=True),
                io.Vae.Input("vae", optional=True),
                io.DynamicCombo.Input("resolution", options=[resize]),
                io.Autogrow.Input("images", template=references),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="empty_latent"),
            ],
        )


class NewerClasses(ComfyExtension):  # type: ignore[misc]  # ComfyUI is not here to be read
    """The classes above."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """List the classes."""
        return [TextEncodeQwenImage21, QwenImage21Cache, ReferenceMultiLatent]


async def comfy_entrypoint() -> NewerClasses:
    """Give ComfyUI the classes."""
    return NewerClasses()
