"""Runs side by side, gathered once: what table, page, pictures and CSV are made of."""

from dataclasses import dataclass, replace
from functools import cached_property

from pipeline.report.compare.answers import Answer, answers, notes
from pipeline.report.compare.groups import Group, groups
from pipeline.report.compare.published import Published, published_for
from pipeline.report.compare.ranking import Ranking, rankings
from pipeline.report.compare.records import ComparedRun, alike
from pipeline.report.compare.seeds import Seeds, over_seeds
from pipeline.report.compare.study import SearchReport


@dataclass(frozen=True)
class Comparison:
    """Runs to choose from."""

    name: str
    given: tuple[ComparedRun, ...]
    workload: str | None = None
    """Whose latency is compared; None: each run's main one."""
    searches: tuple[SearchReport, ...] = ()
    """Over configuration keys, of which the runs are trials."""

    @cached_property
    def runs(self) -> tuple[ComparedRun, ...]:
        """Each shown by what was measured alike in most of them, where it has that."""
        return tuple(alike([run.at(self.workload) for run in self.given]))

    @property
    def workloads(self) -> list[str]:
        """All that were timed."""
        return list(dict.fromkeys(name for run in self.given for name in run.pruned.workloads))

    @cached_property
    def groups(self) -> list[Group]:
        """Runs that differ only in their target ratio."""
        return groups(self.runs)

    @cached_property
    def published(self) -> Published:
        """The paper's points for these models."""
        return published_for(self.runs)

    @cached_property
    def answers(self) -> list[Answer]:
        """Which to take."""
        found = [
            replace(answer, question=f"{search.name}: {answer.question}")
            if len(self.searches) > 1
            else answer
            for search in self.searches
            for answer in search.answers
        ]
        return [*found, *answers(self.runs)]

    @cached_property
    def rankings(self) -> list[Ranking]:
        """Runs of equal ratios by accuracy, and which differ beyond noise."""
        return rankings(self.runs)

    @cached_property
    def seeds(self) -> list[Seeds]:
        """Mean and spread of runs that differ only in seeds."""
        return over_seeds(self.runs)

    @cached_property
    def notes(self) -> list[str]:
        """What to know before comparing."""
        return notes(self.runs)

    @property
    def about(self) -> str:
        """Models, and how many runs are done."""
        models = dict.fromkeys(run.model_name for run in self.runs if run.model_name)
        done = sum(run.is_done for run in self.runs)
        return f"{', '.join(models)}  ·  {done} of {len(self.runs)} runs done"
