"""``python -m tenure.cli``: the command without its installed script."""

from tenure.cli.entry import main

main()
