"""The installed ``tenure`` script, also where the command line's own packages are missing.

The script comes with every installation, the packages it needs only with an extra.
"""

import os
import sys


def main() -> None:
    """Runs the command line and exits; says which extra to install if it is missing."""
    # Of each failed handshake gRPC would log lines of its own; what matters is in our errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from tenure.cli.main import main as run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "tenure":
            raise
        print(
            f"tenure: expected the packages of the command line, but {missing} is not installed; "
            "run: pip install 'tenure[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    run()
