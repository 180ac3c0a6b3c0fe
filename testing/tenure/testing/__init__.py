"""What tests run against: a virtual-time loop, simulated adapters of every port, real etcd."""
