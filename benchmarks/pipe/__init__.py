"""The bare pipe: the ceiling that Tenure is measured against.

A client, a master and a worker process exchange the same messages over grpc.aio as Tenure's do,
and the master writes to the same kind of store before it acknowledges. But it keeps no rules: no
leases that expire, no retries, no terms, no fences, no limits. What remains is what any job system
of this shape must pay.
"""
