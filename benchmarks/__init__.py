"""What Tenure costs, measured beside a bare pipe of the same shape: `python -m benchmarks`."""
