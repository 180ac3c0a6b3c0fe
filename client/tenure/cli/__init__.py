"""The ``tenure`` command: the top layer, where clients, workers and masters meet."""
