"""The command line: `main` runs it, each command imports what it needs when it is called."""

from stackalign.cli.app import app, main

__all__ = ["app", "main"]
