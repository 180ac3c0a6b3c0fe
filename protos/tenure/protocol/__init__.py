"""The hand-written half of the contract: what the protos cannot say."""
