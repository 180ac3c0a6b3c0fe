"""A simulated etcd: three members on a simulated network, spoken to by the shipped etcd client."""
