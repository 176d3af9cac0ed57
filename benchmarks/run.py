"""``python benchmarks/run.py`` is ``dtwin bench``."""

import sys

from dtwin_fast.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
