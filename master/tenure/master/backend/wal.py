"""Whether SQLite's write-ahead log has lost commits that it once had.

SQLite ends the log at the first frame whose checksum is wrong: after a crash that is what was being
written. But with an fsync for each commit, only the last commit can have been under way. If more
of them lie behind the first bad frame, what was durable is damaged, and taking the log up to there
would lose acknowledged commits without a word. (A damage in the very last commit looks like a
crash, and cannot be told from one.)

The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import struct
import sys
from array import array
from typing import Final

_HEADER_BYTES: Final = 32
_FRAME_BYTES: Final = 24
_MAGICS: Final = {0x377F0682: "little", 0x377F0683: "big"}
_WORD: Final = 0xFFFFFFFF


def lost_commits(log: bytes, page_bytes: int) -> int:
    """How many commits of the log's present round lie behind its first bad frame.

    Args:
        log: The whole file.
        page_bytes: How large a page is if the log's header is too damaged to say.
    """
    if len(log) < _HEADER_BYTES + _FRAME_BYTES:
        return 0
    magic, _, found_bytes, _, salts, *stored = struct.unpack_from(">IIII8sII", log)
    order = _MAGICS.get(magic, sys.byteorder)
    sums = _sums((0, 0), log[: _HEADER_BYTES - 8], order)
    whole = magic in _MAGICS and sums == tuple(stored)
    size = _FRAME_BYTES + (found_bytes if whole else page_bytes)
    if not whole:
        (salts,) = struct.unpack_from(">8x8s", log, _HEADER_BYTES)
    lost = 0
    for at in range(_HEADER_BYTES, len(log) - size + 1, size):
        _, commit, salt, *stored = struct.unpack_from(">II8sII", log, at)
        if whole:
            content = log[at : at + 8] + log[at + _FRAME_BYTES : at + size]
            sums = _sums(sums, content, order)
            whole = salt == salts and sums == tuple(stored)
        if not whole and commit and salt == salts:
            lost += 1
    return lost


def _sums(sums: tuple[int, int], content: bytes, order: str) -> tuple[int, int]:
    """SQLite's checksum of some bytes, continued."""
    words = array("I", content)
    if order != sys.byteorder:
        words.byteswap()
    one, two = sums
    pairs = iter(words)
    for first, second in zip(pairs, pairs, strict=True):
        one = (one + first + two) & _WORD
        two = (two + second + one) & _WORD
    return one, two
