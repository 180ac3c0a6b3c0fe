"""Where user code runs: a loop of its own, threads, and spawned children."""
