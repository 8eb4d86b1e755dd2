"""A run that is mirrored to W&B, as a process of its own.

python mirrored_run.py FOLDER STEPS END: log STEPS steps, then END: finish, hang, forget.
"""

import sys
import time
from pathlib import Path

from pipeline.tracking.wandb_session import WandbRun
from pipeline.tracking.wandb_tracker import WandbTracker

folder, steps, end = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
target = WandbRun("abcdef012345", folder, "multipruner", entity="team")
tracker = WandbTracker(target, lambda text: print(f"note: {text}", flush=True))  # noqa: T201
for step in range(steps):
    tracker.log({"prune/step": step, "prune/ratio_percent": 1.5 * step})
print("logged", flush=True)  # noqa: T201
if end == "hang":
    time.sleep(600)
if end == "finish":
    tracker.finish(failed=False)
