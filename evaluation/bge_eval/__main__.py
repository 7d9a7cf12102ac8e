"""``python -m bge_eval`` is the command line."""

from bge_eval.cli.app import main

main()
