"""A job of a run, as a process of its own, slow enough to be disturbed.

python job_of_run.py RUN_FOLDER STAGE...: compute these stages of a run that was prepared.
"""

import sys
import time
from pathlib import Path

from pipeline.plan.run import Run
from pipeline.pruning.records import StepRecord
from pipeline.runs.display import JobLog
from pipeline.runs.interruption import Interrupted, Interruption
from pipeline.runs.session import run_part

STEP_S = 0.4


class SlowLog(JobLog):
    """Waits after every computed step."""

    def step(self, step: StepRecord, computed: bool) -> None:
        time.sleep(STEP_S * computed)
        super().step(step, computed)


interruption = Interruption.watch(60.0, lambda: None)
run = Run.open(Path(sys.argv[1]))
try:
    run_part(run, set(sys.argv[2:]), SlowLog(interruption.check), lambda work: None)
except Interrupted:
    sys.exit(3)
