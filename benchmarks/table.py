"""``python benchmarks/table.py RESULTS.json``: the Markdown of a results file."""

import json
import sys
from pathlib import Path

from dtwin_fast.benchmarks import report
from dtwin_fast.benchmarks.device import report as device_report
from dtwin_fast.benchmarks.screening import report as screening_report

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    # Only the results of benchmarks/gpu.py name a device, and only screenings have overheads.
    by_key = {"device": device_report, "overheads": screening_report}
    module = next((found for key, found in by_key.items() if key in results), report)
    print(module.as_markdown(results))
