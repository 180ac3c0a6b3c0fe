"""The master node: owns partitions, commits, recovers, serves, freezes, hands over."""
