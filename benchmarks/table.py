"""``python benchmarks/table.py RESULTS.json``: the Markdown of a results file, for README."""

import json
import sys
from pathlib import Path

from dtwin_fast.benchmarks.report import as_markdown

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(as_markdown(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
