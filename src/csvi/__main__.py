"""`python -m csvi` is the program `csvi`."""

import sys

from csvi.cli import main

if __name__ == "__main__":
    sys.exit(main())
