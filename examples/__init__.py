"""Programs that show Tenure at work; each folder is one of them."""
