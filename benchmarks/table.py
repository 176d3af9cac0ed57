"""``python benchmarks/table.py RESULTS.json``: the Markdown of a results file, for README."""

import json
import sys
from pathlib import Path

from dtwin_fast.benchmarks import report
from dtwin_fast.benchmarks.device import report as device_report

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    # Only the results of benchmarks/gpu.py name a device.
    print((device_report if "device" in results else report).as_markdown(results))
