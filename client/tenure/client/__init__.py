"""The SDK: define jobs, submit them, wait for their results."""
