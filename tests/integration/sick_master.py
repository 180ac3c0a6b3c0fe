"""``tenure`` with a bug: its process dies of the first event that it replays."""

import os
import sys

from tenure.cli.main import main
from tenure.master.core.partition import Partition


def _die(partition: Partition, event: object, seq: int) -> None:
    os._exit(139)


if __name__ == "__main__":
    Partition.replay = _die  # type: ignore[assignment,method-assign]
    sys.argv[0] = "tenure"
    main()
