"""The worker node: leases from every master, user code in executors, results back."""
