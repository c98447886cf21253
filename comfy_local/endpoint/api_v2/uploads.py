"""Reads the file of an upload, which comes as a form of several parts."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import PurePosixPath

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from .assets import MAX_ASSET_BYTES, Asset, AssetInfo, AssetStore
from .errors import ApiError, invalid_request

__all__ = ["media_type", "store_upload"]

# The parts of a form beside its file.
MAX_FORM_BYTES = 1_000_000
MAX_FIELDS = 100
MAX_NAME = 1_000
DEFAULT_TYPE = "application/octet-stream"


async def store_upload(request: Request, assets: AssetStore) -> tuple[Asset, bool]:
    """Stores the file of a request.

    Returns:
        The asset, and whether its content was not there before.

    Raises:
        ApiError: The form is malformed, has no file or too large a file; or the file's hash is
            another one than the client says.
    """
    if not request.headers.get("Content-Type", "").startswith("multipart/form-data"):
        raise invalid_request("send the file as multipart/form-data, in the part `file`")
    async with AsyncExitStack() as stack:
        form = await _form(request)
        stack.push_async_callback(form.close)
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise invalid_request("the form has no part `file`")
        if file.size is not None and file.size > MAX_ASSET_BYTES:
            raise _too_large()
        name = _text(form, "file_path") or file.filename or "upload.bin"
        content_type = _text(form, "content_type") or file.content_type
        info = AssetInfo(name[:MAX_NAME], media_type(content_type, name))
        # A large file takes a while to hash.
        written = await asyncio.to_thread(assets.write, file.file)
        is_new = not assets.has_content(written.digest)
        return assets.add(written, info, _text(form, "expected_hash")), is_new


def media_type(content_type: str | None, name: str) -> str:
    """Returns a file's media type: the client's, or the usual one for its name."""
    if content_type and content_type.isascii() and content_type.isprintable():
        return content_type[:MAX_NAME]
    return mimetypes.guess_type(PurePosixPath(name).name)[0] or DEFAULT_TYPE


async def _form(request: Request) -> FormData:
    parser = MultiPartParser(request.headers, _limited(request), max_files=1, max_fields=MAX_FIELDS)
    try:
        return await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        raise invalid_request(f"the form is malformed: {error}") from error


async def _limited(request: Request) -> AsyncGenerator[bytes, None]:
    """Yields the body, which is read to its end, so that its sender can read the answer."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_ASSET_BYTES + MAX_FORM_BYTES:
            yield chunk
    if size > MAX_ASSET_BYTES + MAX_FORM_BYTES:
        raise _too_large()


def _too_large() -> ApiError:
    problem = f"a file may have at most {MAX_ASSET_BYTES:,} bytes"
    return ApiError(413, "payload_too_large", problem)


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""
