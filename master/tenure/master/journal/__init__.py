"""The journal: the port, framing, event codec, snapshots, and the adapters."""
