"""``python -m visrag``."""

from .cli import main

main(prog_name="visrag")
