"""Videos and sounds that tests send, made by code."""

from __future__ import annotations

import io

import av
import numpy as np

__all__ = ["sound", "video"]


def video(
    format_name: str = "mp4", codec: str = "libx264", frames: int = 4, **options: str
) -> bytes:
    """A clip of 64x48 pixels whose frames grow lighter."""
    file = io.BytesIO()
    with av.open(file, "w", format=format_name, options=options) as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for step in range(frames):
            pixels = np.full((48, 64, 3), 40 * step % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def sound(format_name: str = "flac", codec: str = "flac") -> bytes:
    """A second of a tone."""
    file = io.BytesIO()
    with av.open(file, "w", format=format_name) as container:
        stream = container.add_stream(codec, rate=44100)
        tone = (np.sin(np.arange(44100) / 20) * 8000).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate = 44100
        size = stream.codec_context.frame_size or None
        resampler = av.AudioResampler(stream.format, stream.layout, 44100, size)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    return file.getvalue()
