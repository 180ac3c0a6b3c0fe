"""A thin client for etcd's v3 API over grpc.aio: many endpoints, one try a call, typed errors."""
