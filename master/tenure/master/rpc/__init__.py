"""gRPC: the thin layer between the wire and the node's services."""
