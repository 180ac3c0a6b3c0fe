"""The master node: the pure core, the journal, the election, and the shell around them."""
