"""Backends: the connections that journals and elections share, and the errors they raise."""
