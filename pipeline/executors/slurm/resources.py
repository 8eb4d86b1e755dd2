"""What the cluster has, what a stage asks of it, and everything in which the two do not agree."""

import getpass
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from pipeline.executors.slurm.client import ask
from pipeline.executors.slurm.section import SlurmSection, StageResources

DAY_MIN = 24 * 60
OURS = {
    "array": "cluster.array_parallelism", "account": "cluster.account", "chdir": "the launch",
    "constraint": "cluster.constraint", "cpus-per-task": "cluster.cpus",
    "dependency": "the plan", "error": "the run", "gpus": "cluster.gpus",
    "gpus-per-node": "cluster.gpus", "gres": "cluster.gpus and cluster.gpu_type",
    "job-name": "the run", "kill-on-invalid-dep": "the plan", "mem": "cluster.mem_gb",
    "no-requeue": "cluster.max_requeues=0", "nodes": "cluster.nodes",
    "ntasks": "cluster.tasks_per_node", "ntasks-per-node": "cluster.tasks_per_node",
    "open-mode": "the run", "output": "the run", "partition": "cluster.partition",
    "qos": "cluster.qos", "requeue": "cluster.max_requeues", "signal": "cluster.warn_s",
    "time": "cluster.timeout_min", "wrap": "the run", "parsable": "the run",
    "test-only": "plan=true",
    "wait": "wait=true", "help": "", "usage": "", "version": "",
}  # fmt: skip
"""Options of sbatch that other keys, or nobody, may set."""
ONLY_HERE = {"ext2/ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlayfs", "overlay", "zfs", "ramfs"}


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition, and the nodes in it."""

    name: str
    is_default: bool
    is_up: bool
    limit_min: int | None
    """Longest time limit; None is without end."""
    max_nodes: int | None
    accounts: tuple[str, ...] | None
    """Accounts that may use it; None is all."""
    qos: tuple[str, ...] | None
    nodes: tuple["Node", ...]

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"partition {self.name}" if self.name else "any partition"


@dataclass(frozen=True, slots=True)
class Node:
    """A node."""

    name: str
    host: str
    cpus: int
    mem_mb: int
    gpus: Mapping[str, int]
    """GPUs by type; the type is empty where SLURM has none."""
    features: frozenset[str]
    partitions: tuple[str, ...]

    @property
    def gpu_count(self) -> int:
        """GPUs of all types."""
        return sum(self.gpus.values())


@dataclass(frozen=True, slots=True)
class Cluster:
    """Partitions and nodes."""

    partitions: tuple[Partition, ...]

    @classmethod
    def read(cls) -> "Cluster | None":
        """Ask SLURM; None where it does not answer."""
        nodes_text = ask("scontrol", "show", "node", "--oneliner")
        partitions_text = ask("scontrol", "show", "partition", "--oneliner")
        if nodes_text is None or partitions_text is None:
            return None
        nodes = [_node(fields) for fields in _lines(nodes_text, "NodeName")]
        return cls(tuple(_partition(f, nodes) for f in _lines(partitions_text, "PartitionName")))

    def of(self, resources: StageResources) -> list[Partition]:
        """The partitions that a job may go to: those that are asked for, or the default."""
        wanted = resources.partition.split(",") if resources.partition else None
        return [p for p in self.partitions if (p.name in wanted if wanted else p.is_default)]

    @property
    def everything(self) -> Partition:
        """All nodes, to check the rest of what is asked for where the partition is wrong."""
        nodes = {node.name: node for p in self.partitions for node in p.nodes}
        return Partition("", False, True, None, None, None, None, tuple(nodes.values()))

    def completed(self, resources: StageResources) -> StageResources:
        """``resources`` with what the configuration leaves to the partition."""
        partitions = self.of(resources)
        nodes = _fitting(partitions, resources)
        if not nodes:
            return resources
        limit = min(DAY_MIN, *(partition.limit_min or DAY_MIN for partition in partitions))
        share = min(_fair_share_mb(node, resources) for node in nodes)
        return resources.model_copy(
            update={
                "timeout_min": resources.timeout_min or limit,
                "mem_gb": resources.mem_gb or share / 1024,
            }
        )


@dataclass(frozen=True, slots=True)
class Accounting:
    """Names that SLURM's accounting knows, in its order; empty without accounting."""

    mine: tuple[str, ...]
    """Accounts of this user."""
    accounts: tuple[str, ...]
    qos: tuple[str, ...]
    is_enforced: bool
    """Whether jobs of other accounts are refused."""

    @classmethod
    def read(cls) -> "Accounting":
        """Ask SLURM."""
        settings = ask("scontrol", "show", "config") or ""
        enforced = re.search(r"^AccountingStorageEnforce\s*=\s*(.*)$", settings, re.MULTILINE)
        return cls(
            mine=_names("assoc", f"user={getpass.getuser()}", "format=account"),
            accounts=_names("account", "format=account"),
            qos=_names("qos", "format=name"),
            is_enforced=enforced is not None and enforced.group(1).strip() not in ("none", ""),
        )


def _names(*query: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((ask("sacctmgr", "-nP", "show", *query) or "").split()))


def _lines(text: str, first: str) -> Iterator[dict[str, str]]:
    for line in text.splitlines():
        if line.startswith(f"{first}="):
            yield dict(re.findall(r"(\S+?)=(\S*)", line))


def _node(fields: Mapping[str, str]) -> Node:
    gpus: dict[str, int] = {}
    for gres in re.sub(r"\([^)]*\)", "", fields.get("Gres", "")).split(","):
        name, *kind, count = [*gres.split(":"), ""] if ":" not in gres else gres.split(":")
        if name == "gpu" and count.isdecimal():
            gpus[":".join(kind)] = gpus.get(":".join(kind), 0) + int(count)
    features = fields.get("AvailableFeatures", "")
    return Node(
        name=fields["NodeName"],
        host=fields.get("NodeHostName", fields["NodeName"]),
        cpus=int(fields.get("CPUEfctv", fields.get("CPUTot", "1"))),
        mem_mb=int(fields.get("RealMemory", "0")),
        gpus=gpus,
        features=frozenset(_list(features) or ()),
        partitions=_list(fields.get("Partitions", "")) or (),
    )


def _partition(fields: Mapping[str, str], nodes: Sequence[Node]) -> Partition:
    name = fields["PartitionName"]
    limit, most = fields.get("MaxTime", ""), fields.get("MaxNodes", "")
    return Partition(
        name=name,
        is_default=fields.get("Default") == "YES",
        is_up=fields.get("State") == "UP",
        limit_min=_minutes(limit),
        max_nodes=int(most) if most.isdecimal() else None,
        accounts=_list(fields.get("AllowAccounts", "ALL")),
        qos=_list(fields.get("AllowQos", "ALL")),
        nodes=tuple(node for node in nodes if name in node.partitions),
    )


def _list(text: str) -> tuple[str, ...] | None:
    return None if text in ("ALL", "", "(null)", "N/A") else tuple(text.split(","))


def _minutes(text: str) -> int | None:
    """SLURM's [DAYS-]HOURS:MINUTES:SECONDS in minutes; None for UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if not match:
        return None
    days, hours, minutes = (int(part or 0) for part in match.groups()[:3])
    return (days * 24 + hours) * 60 + minutes


def _fits(node: Node, resources: StageResources) -> bool:
    gpus = node.gpus.get(resources.gpu_type, 0) if resources.gpu_type else node.gpu_count
    return (
        gpus >= (resources.gpus or 0)
        and node.cpus >= _cpus(resources)
        and node.mem_mb >= (resources.mem_gb or 0) * 1024
    )


def _fitting(partitions: Sequence[Partition], resources: StageResources) -> list[Node]:
    nodes = [node for partition in partitions for node in partition.nodes]
    return [node for node in nodes if _fits(node, resources)] or nodes


def _cpus(resources: StageResources) -> int:
    return (resources.cpus or 1) * (resources.tasks_per_node or 1)


def _fair_share_mb(node: Node, resources: StageResources) -> int:
    """Memory in proportion to the GPUs that are taken, or to the CPUs without GPUs."""
    share = _cpus(resources) / node.cpus
    if resources.gpus and node.gpu_count:
        share = resources.gpus / node.gpu_count
    return int(node.mem_mb * min(1.0, share))


def problems(config: SlurmSection) -> list[str]:
    """What the cluster would refuse, or leave waiting for ever, with what would be right.

    The runs of a sweep ask for the same: it is found out once.
    """
    return list(_problems(type(config), config.model_dump_json()))


@cache
def _problems(section: type[SlurmSection], settings: str) -> tuple[str, ...]:
    config = section.model_validate_json(settings)
    cluster = Cluster.read()
    if cluster is None:
        return (
            "cluster: SLURM does not answer (scontrol show partition); on a machine without SLURM "
            "choose cluster=inline or cluster=local",
        )
    accounting = Accounting.read()
    problems: list[str] = []
    for stage in type(config.stages).model_fields:
        own = {name for name, value in getattr(config.stages, stage) if value not in (None, {})}
        for name, problem in _stage_problems(cluster, accounting, config.of_stage(stage)):
            key = f"cluster.stages.{stage}" if name in own else "cluster"
            text = f"{key}.{name}: {problem}"
            if text not in problems:
                problems.append(text)
    return tuple(problems)


Problem = tuple[str, str]
"""The key that is wrong, and how."""


def _stage_problems(
    cluster: Cluster, accounting: Accounting, asked: StageResources
) -> Iterator[Problem]:
    yield from _parameter_problems(asked)
    yield from _name_problems(accounting, asked)
    partitions = cluster.of(asked)
    names = ", ".join(p.name for p in cluster.partitions)
    known = {p.name for p in cluster.partitions}
    for name in (asked.partition or "").split(","):
        if name and name not in known:
            yield "partition", f"{name!r} is not there; allowed is one of {names}"
    if not partitions and asked.partition is None:
        yield "partition", f"SLURM has no default partition; give one of {names}"
    each = [list(_partition_problems(p, asked, names)) for p in partitions or [cluster.everything]]
    if all(each):  # where SLURM may choose, one that can run the job is enough
        yield from chain.from_iterable(each)


def _partition_problems(
    partition: Partition, asked: StageResources, names: str
) -> Iterator[Problem]:
    if not partition.is_up:
        yield "partition", f"{partition.name!r} is not up; choose another of {names}"
    if asked.timeout_min and partition.limit_min and asked.timeout_min > partition.limit_min:
        yield (
            "timeout_min",
            f"{asked.timeout_min} is longer than {partition.title} allows; allowed is up "
            f"to {partition.limit_min}",
        )
    most_nodes = min(len(partition.nodes), partition.max_nodes or len(partition.nodes))
    if (asked.nodes or 1) > most_nodes:
        yield (
            "nodes",
            f"{asked.nodes} is more than {partition.title} gives; allowed is up to {most_nodes}",
        )
    yield from _node_problems(partition, asked)
    for key, given, allowed in (
        ("account", asked.account, partition.accounts),
        ("qos", asked.qos, partition.qos),
    ):
        if given and allowed and given not in allowed:
            yield (
                key,
                f"{given!r} may not be used in {partition.title}; allowed is one of "
                f"{', '.join(allowed)}",
            )


def _node_problems(partition: Partition, asked: StageResources) -> Iterator[Problem]:
    where = f"no node of {partition.title} has"
    nodes = partition.nodes
    types = sorted({kind for node in nodes for kind in node.gpus if kind})
    of_type = [node for node in nodes if not asked.gpu_type or asked.gpu_type in node.gpus]
    if asked.gpu_type and not of_type:
        allowed = f"allowed is one of {', '.join(types)}" if types else "its GPUs have no type"
        yield "gpu_type", f"{where} GPUs of type {asked.gpu_type!r}; {allowed}"
    counts = [n.gpus.get(asked.gpu_type, 0) if asked.gpu_type else n.gpu_count for n in of_type]
    if (asked.gpus or 0) > max(counts, default=asked.gpus or 0):
        yield "gpus", f"{where} {asked.gpus}; allowed is up to {max(counts)} of a node"
    most_cpus = max((node.cpus for node in nodes), default=0)
    if _cpus(asked) > most_cpus:
        yield (
            "cpus",
            f"{where} {_cpus(asked)} CPUs (tasks_per_node x cpus); allowed is up to {most_cpus}",
        )
    most_mb = max((node.mem_mb for node in nodes), default=0)
    if (asked.mem_gb or 0) * 1024 > most_mb:
        yield "mem_gb", f"{where} {asked.mem_gb:g}; allowed is up to {most_mb / 1024:.1f}"
    features = frozenset[str]().union(*(node.features for node in nodes))
    for word in re.findall(r"[A-Za-z_][\w.-]*", asked.constraint or ""):
        if word not in features:
            allowed = f"allowed is one of {', '.join(sorted(features))}" if features else "leave it"
            yield "constraint", f"{where} the feature {word!r}; {allowed}"


def _name_problems(accounting: Accounting, asked: StageResources) -> Iterator[Problem]:
    """Account and quality of service, as far as accounting knows them."""
    mine, everyone = accounting.mine, accounting.accounts
    if asked.account and everyone and asked.account not in {*mine, *everyone}:
        allowed = ", ".join(mine or everyone)
        yield "account", f"{asked.account!r} is not there; allowed is one of {allowed}"
    elif asked.account and mine and asked.account not in mine and accounting.is_enforced:
        allowed = ", ".join(mine)
        yield (
            "account",
            f"{getpass.getuser()} may not use {asked.account!r}; allowed is one of {allowed}",
        )
    if asked.qos and accounting.qos and asked.qos not in accounting.qos:
        allowed = ", ".join(accounting.qos)
        yield "qos", f"{asked.qos!r} is not there; allowed is one of {allowed}"


def _parameter_problems(asked: StageResources) -> Iterator[Problem]:
    if not asked.parameters:
        return
    known = set(re.findall(r"--([a-z][a-z-]+)", ask("sbatch", "--help") or ""))
    free = ", ".join(sorted(known - OURS.keys()))
    for given in asked.parameters:
        name = given.replace("_", "-")
        if name in OURS:
            yield f"parameters.{given}", f"is set by {OURS[name] or 'nobody'}"
        elif known and name not in known:
            yield f"parameters.{given}", f"sbatch has no such option; allowed is one of {free}"


def not_shared(folder: Path) -> str | None:
    """A warning where the nodes may not see a folder; None where they do, or it seems so."""
    cluster = Cluster.read()
    hosts = {n.host for p in cluster.partitions for n in p.nodes} if cluster else set()
    if hosts <= {platform.node(), platform.node().partition(".")[0]}:
        return None
    while not folder.exists():
        folder = folder.parent
    kind = (ask("stat", "--file-system", "--format=%T", str(folder)) or "").strip()
    if kind in ONLY_HERE:
        return (
            f"{folder} is on {kind}, a file system of this machine: the nodes may not see it, "
            "which cannot be told from here. If jobs find no files, choose run.dir and store.dir "
            "on a shared one"
        )
    return None
