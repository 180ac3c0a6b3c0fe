"""Fencing tokens as messages, and back."""

from tenure.protocol.fence import Token
from tenure.v1 import common_pb2


def token_of(wire: common_pb2.Token) -> Token:
    """A token from a message; one that was not set is ``NO_TOKEN``."""
    return Token(wire.epoch, wire.revision)


def token_to_wire(token: Token) -> common_pb2.Token:
    """A token as a message."""
    return common_pb2.Token(epoch=token.epoch, revision=token.revision)
