"""The quick start's application."""
