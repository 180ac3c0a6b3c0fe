"""What if: recorded jobs through the real core on virtual time, with other workers or settings."""
