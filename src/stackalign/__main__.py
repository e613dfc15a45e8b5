"""Run the command line with ``python -m stackalign``."""

from stackalign.cli import main

if __name__ == "__main__":
    main()
