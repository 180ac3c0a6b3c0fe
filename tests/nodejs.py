"""Where Node and its examples are; ``make node`` puts them there."""

import shutil
from pathlib import Path

NODE = shutil.which("node") or "node"
_EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "node"


def node_examples() -> Path:
    """The folder of the Node examples, with what they depend on.

    Raises:
        FileNotFoundError: Something is missing.
    """
    if shutil.which("node") is None or not (_EXAMPLES / "node_modules").is_dir():
        raise FileNotFoundError("expected Node and the examples' packages: run `make node`")
    return _EXAMPLES
