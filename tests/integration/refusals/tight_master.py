"""``tenure`` with limits that a test can reach: put before a master's command."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from typing import Final

from tenure.cli import main
from tenure.master.core.config import PartitionConfig
from tenure.master.node.master import Master

QUEUE_DEPTH_MAX: Final = 3
#: Room for one payload of the largest size, and for small ones.
BYTES_MAX: Final = 300 * 1024
#: Changes that a watch can go back to.
CHANGES_KEPT: Final = 1


class TightMaster(Master):
    """A master with little room."""

    def _config(self, partition: int) -> PartitionConfig:
        return dataclasses.replace(
            super()._config(partition), queue_depth_max=QUEUE_DEPTH_MAX, bytes_max=BYTES_MAX
        )


if __name__ == "__main__":
    # The only way in: no flag changes a limit.
    vars(importlib.import_module("tenure.master.node.changes"))["CHANGES_KEPT"] = CHANGES_KEPT
    vars(importlib.import_module("tenure.master.main"))["Master"] = TightMaster
    sys.exit(main.run(sys.argv[sys.argv.index("master") :]))
