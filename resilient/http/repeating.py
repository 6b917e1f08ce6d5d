"""What may be sent again: a body that can be read twice, and what the server says that it has not processed."""

from __future__ import annotations

from typing import Any

__all__ = ["is_replayable", "refused_by_http2"]

# HTTP/2 error code of RFC 9113 section 7: the stream was refused before any processing.
REFUSED_STREAM = 7


def is_replayable(request: Any) -> bool:
    """Whether the body can be sent twice: not a generator or an open file, which are gone once they were read."""
    # Bytes, JSON and forms are buffered by both libraries; only a streamed body has no content yet.
    if hasattr(request, "_content"):
        return True
    stream = request.stream
    fields = getattr(stream, "fields", None)
    if fields is not None:  # multipart: each part is bytes, or a file that is rewound if it can be
        files = [field.file for field in fields if hasattr(field, "file")]
        return all(isinstance(file, str | bytes) or (hasattr(file, "seekable") and file.seekable()) for file in files)
    if type(stream).__module__.partition(".")[0] not in ("httpx", "httpx2"):
        return False  # a stream of somebody's own is not known to begin anew
    source = getattr(stream, "_stream", stream)
    return not any(hasattr(source, name) for name in ("__anext__", "__next__", "read", "aread"))


def refused_by_http2(error: BaseException) -> bool:
    """HTTP/2 says that the request was not processed: REFUSED_STREAM, or a GOAWAY that covers no stream at all.

    Both arrive as a protocol error whose cause carries the h2 event. Read with care: neither library documents it.
    """
    cause: BaseException | None = error
    for _ in range(4):
        if cause is None:
            return False
        event = cause.args[0] if cause.args else None
        if getattr(event, "last_stream_id", None) == 0:
            return True
        if getattr(event, "error_code", None) == REFUSED_STREAM:
            return True
        cause = cause.__cause__
    return False
