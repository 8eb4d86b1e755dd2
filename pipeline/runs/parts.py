"""What the jobs of a run computed, as they said at their ends."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from pipeline.errors import DamagedError
from pipeline.executors.submission import attempts
from pipeline.plan.run import Run
from pipeline.store.summary import Work


def work_of_jobs(run: Run, names: Iterable[str]) -> Iterator[Work]:
    """What jobs of these stages computed; those that another run submitted are left out.

    So is what is damaged of it: the next launch names that.
    """
    mine = str(run.folder.path.absolute())
    for name in names:
        with suppress(DamagedError):
            for attempt in attempts(run.store.folder(run.plan.by_name[name])):
                if attempt.submission.task(attempt.index).run != mine:
                    continue
                for end in attempt.submission.ends(attempt.index):
                    if name in end.get("stages", {}):
                        yield Work.model_validate(end)
