"""Text that is cut to a limit."""

from tenure.protocol.limits import CUT


def cut(text: str, bytes_max: int) -> str:
    """The text, or its beginning and a mark, in at most this many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= bytes_max:
        return data.decode()
    return data[: bytes_max - len(CUT)].decode("utf-8", "ignore") + CUT
