"""What can be chosen, and what is said about a choice that cannot be had."""

import json
import re
import shlex
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from support_inputs import CONF, REPOSITORY, configured, problems_of, raw

from pipeline.config.compose import compose_overrides
from pipeline.config.overrides import check
from pipeline.config.schema import known_keys
from pipeline.export import targets
from pipeline.methods import methods
from pipeline.recovery import techniques
from pipeline.stages.evaluate import EvaluateConfig
from pipeline.stages.probe import ProbeConfig

ADDED = ("paper", "protocol")
"""Groups of which none is chosen unless it is added: +paper=NAME."""
OPTIONS = sorted(
    (f.parent.name, f.stem) for f in CONF.glob("*/*.yaml") if f.parent.name not in ADDED
)
OF_NO_METHOD = "small_models"
PROTOCOLS = sorted(f.stem for f in CONF.glob("protocol/*.yaml") if f.stem != OF_NO_METHOD)
PAPERS = sorted(f.stem for f in CONF.glob("paper/*.yaml"))
FILES = sorted(CONF.rglob("*.yaml"))
NEEDED = {
    "hf": ["model.path=folder"],
    "ptb": ["calibration.path=ptb.test.txt"],
    "text": ["calibration.path=text.txt"],
    "tokens": ["calibration.path=tokens.json"],
}
"""What an option leaves to the user."""

SECRET = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105


def refused(*overrides: str) -> list[str]:
    return problems_of(lambda: configured(*overrides))


def choices(*overrides: str) -> dict[str, str]:
    """The options that are in force, by group."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole = compose("config", list(overrides), return_hydra_config=True)
    return dict(whole.hydra.runtime.choices)


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[str, list[dict[str, Any]]]:
    """What the paper publishes, by hub id."""
    rows = json.loads((shared / "paper" / "published_results.json").read_text("utf-8"))
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in rows["multipruner"]:
        by_model.setdefault(row["hf_id"], []).append(row)
    return by_model


# ---- what is in conf/


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_to_a_valid_configuration(group: str, option: str) -> None:
    configured(f"{group}={option}", *NEEDED.get(option, []))


@pytest.mark.parametrize("option", ["none", "commonsense", "demo"])
def test_the_task_of_the_small_probe_is_known_whatever_is_evaluated(option: str) -> None:
    config = configured("probe=demo", f"evaluate={option}")
    assert set(config.of(ProbeConfig).tasks) <= set(config.of(EvaluateConfig).task_files)


def test_the_configuration_without_any_override_is_valid() -> None:
    assert Path(configured().model.path) == REPOSITORY / "pipeline" / "builtin" / "stories-5m"


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_file_holds_what_the_paper_publishes_for_its_model(
    paper: str, published: dict[str, list[dict[str, Any]]]
) -> None:
    config = configured(f"+paper={paper}")
    rows = published[config.model.path]
    ours = {
        "pruning_distribution": ":".join(f"{share:g}" for share in config.prune.distribution),
        "mlp_channel_group_size": config.prune.mlp_group_size,
        "attn_channel_group_size": config.prune.attn_group_size,
        "weight_reorder": config.prune.weight_reorder,
        "calibration": {
            "dataset": config.calibration.dataset,
            "block_samples": config.calibration.block_samples,
            "width_samples": config.calibration.width_samples,
            "seqlen": config.calibration.seqlen,
        },
    }
    for row in rows:
        assert ours == {name: row[name] for name in ours}
    assert config.calibration.block_windows is None
    assert config.calibration.width_windows is None
    assert config.prune.target_ratio in {row["ratio_percent"] for row in rows}


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_file_says_which_ratios_are_published(
    paper: str, published: dict[str, list[dict[str, Any]]]
) -> None:
    text = (CONF / "paper" / f"{paper}.yaml").read_text("utf-8")
    said = re.search(r"it publishes ([\d, ]+) %", text)
    ratios = sorted(
        row["ratio_percent"] for row in published[configured(f"+paper={paper}").model.path]
    )
    assert said
    assert said[1] == ", ".join(str(ratio) for ratio in ratios)


def test_every_published_model_of_a_known_architecture_has_a_paper_file(
    published: dict[str, list[dict[str, Any]]],
) -> None:
    known = {model for model in published if not model.startswith("baichuan-inc/")}
    assert {configured(f"+paper={paper}").model.path for paper in PAPERS} == known


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_a_file_opens_with_the_command_that_runs_it(file: Path) -> None:
    lines = file.read_text("utf-8").splitlines()
    comment = list(takewhile(lambda line: line.startswith("#"), lines))
    if comment[0] == "# @package _global_":
        del comment[0]
    assert comment[0].startswith("# python launch.py ")
    if file.parent == CONF:
        return  # it names the forms, not one command
    # [KEY=VALUE] is one that may be left out
    arguments = [a.strip("[]") if a[0] == "[" else a for a in shlex.split(comment[0])[3:]]
    assert check(arguments).problems == []
    assert choices(*arguments)[file.parent.name] == file.stem
    configured(*arguments)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_sets_text_and_amounts_and_leaves_the_method_to_the_user(protocol: str) -> None:
    assert protocol in methods()
    text = ["calibration.path=text.txt"]
    for method in (protocol, "multipruner"):
        config = configured(f"prune={method}", f"+protocol={protocol}", *text)
        assert config.prune.method == method
    settings = yaml.safe_load((CONF / "protocol" / f"{protocol}.yaml").read_text("utf-8"))
    for section, values in settings.items():
        if section != "defaults":
            of_own = configured(f"prune={protocol}", f"+protocol={protocol}", *text)
            assert getattr(of_own, section).model_dump().items() >= values.items()


def test_a_protocol_wins_over_a_paper_file_before_it() -> None:
    config = configured("prune=two_ssp", "+paper=llama2_7b", "+protocol=two_ssp")
    assert (config.calibration.dataset, config.calibration.block_windows) == ("c4", 32)
    assert (config.prune.target_ratio, config.prune.mlp_group_size) == (25, 1024)


# ---- what wins


def test_the_command_line_wins_over_a_paper_file() -> None:
    config = configured(
        "model=hf",
        "model.path=folder",
        "model.dtype=bfloat16",
        "calibration.seqlen=1024",
        "+paper=llama2_7b",
        "prune.target_ratio=7",
        "prune.distribution=[1,2,3]",
    )
    assert (config.model.path, config.model.dtype) == ("folder", "bfloat16")
    assert config.calibration.seqlen == 1024
    assert (config.prune.target_ratio, config.prune.distribution) == (7, [1, 2, 3])
    assert config.prune.mlp_group_size == 1024


@pytest.mark.parametrize("overrides", [[], ["model=smollm2_135m"], ["model=hf"]])
def test_a_paper_file_wins_over_the_model_and_its_sizes(overrides: list[str]) -> None:
    config = configured("+paper=llama3_2_3b", *overrides)
    assert (config.model.path, config.model.gguf_file) == ("meta-llama/Llama-3.2-3B", None)
    assert (config.prune.mlp_group_size, config.prune.attn_group_size) == (768, 384)
    assert config.prune.distribution == [10, 90, 0]
    assert (config.calibration.seqlen, config.calibration.block_windows) == (2048, None)


def test_a_paper_file_keeps_the_calibration_that_was_chosen() -> None:
    config = configured("calibration=text", "calibration.path=mine.txt", "+paper=llama2_7b")
    assert (config.calibration.dataset, config.calibration.path) == ("text", "mine.txt")
    assert config.calibration.seqlen == 2048


# ---- what is refused


@pytest.mark.parametrize(
    ("override", "key", "value", "allowed"),
    [
        ("prune.target_ratio=abc", "prune.target_ratio", "'abc'", "a number"),
        ("prune.target_ratio=true", "prune.target_ratio", "True", "a number"),
        ("prune.target_ratio=null", "prune.target_ratio", "None", "a number"),
        ("prune.target_ratio=0", "prune.target_ratio", "0", "above 0"),
        ("prune.target_ratio=-3.5", "prune.target_ratio", "-3.5", "above 0"),
        ("prune.target_ratio=100", "prune.target_ratio", "100", "below 100"),
        ("prune.target_ratio=nan", "prune.target_ratio", "nan", "finite"),
        ("prune.target_ratio=inf", "prune.target_ratio", "inf", "finite"),
        ("prune.target_ratio=-inf", "prune.target_ratio", "-inf", "finite"),
        ("prune.mlp_group_size=0", "prune.mlp_group_size", "0", "at least 1"),
        ("prune.mlp_group_size=1.5", "prune.mlp_group_size", "1.5", "a whole number"),
        ('prune.mlp_group_size="128"', "prune.mlp_group_size", "'128'", "a whole number"),
        ("prune.attn_group_size=true", "prune.attn_group_size", "True", "a whole number"),
        ("prune.weight_reorder=maybe", "prune.weight_reorder", "'maybe'", "true or false"),
        ("prune.weight_reorder=1", "prune.weight_reorder", "1", "true or false"),
        ("prune.search=guess", "prune.search", "'guess'", "'exhaustive'"),
        ("prune.distribution=44", "prune.distribution", "44", r"\[44,52,4\]"),
        ("prune.distribution=44:52:4", "prune.distribution", "'44:52:4'", r"\[44,52,4\]"),
        ("prune.distribution=[]", "prune.distribution", r"\[\]", "three"),
        ("prune.distribution=[44,56]", "prune.distribution", r"\[44, 56\]", "three"),
        ("prune.distribution=[1,2,3,4,5]", "prune.distribution", r"\[1, 2, 3, 4, 5\]", "three"),
        ("prune.distribution=[-1,1,1]", "prune.distribution", r"\[-1, 1, 1\]", "non-negative"),
        ("prune.distribution=[0,0,0]", "prune.distribution", r"\[0, 0, 0\]", "positive sum"),
        ("prune.distribution=[1,a,1]", r"prune.distribution\[1\]", "'a'", "a number"),
        ("prune.distribution=[1,1,nan]", r"prune.distribution\[2\]", "nan", "finite"),
        ("prune.distribution=[inf,1,1]", r"prune.distribution\[0\]", "inf", "finite"),
        ("calibration.dataset=imdb", "calibration.dataset", "'imdb'", "'alpaca'.*'tokens'"),
        ("calibration.seqlen=1", "calibration.seqlen", "1", "at least 2"),
        ("calibration.block_samples=0", "calibration.block_samples", "0", "at least 1"),
        ("calibration.width_windows=0", "calibration.width_windows", "0", "at least 1"),
        ("calibration.path=3", "calibration.path", "3", "text"),
        ("model.dtype=float64", "model.dtype", "'float64'", "'float32'.*'bfloat16'.*'float16'"),
        ("model.device=gpu", "model.device", "'gpu'", "'auto'.*'cpu'.*'cuda'"),
        ("model.offload=gpu", "model.offload", "'gpu'", "'none'.*'cpu'.*'disk'"),
        ("model.attn_implementation=flash", "model.attn_implementation", "'flash'", "'sdpa'"),
        ("model.path=''", "model.path", "''", "not empty"),
        ("store.dir=''", "store.dir", "''", "not empty"),
        ("scoring.memory_fraction=0", "scoring.memory_fraction", "0", "above 0"),
        ("run.name=../elsewhere", "run.name", "'../elsewhere'", "letters, digits"),
        (f"run.name={'a' * 121}", "run.name", "'a{121}'", "120 characters"),
        ("++score=3", "score", "3", "a group of keys"),
    ],
)
def test_a_wrong_value_is_answered_with_key_value_and_what_is_allowed(
    override: str, key: str, value: str, allowed: str
) -> None:
    (problem,) = refused(override)
    assert re.fullmatch(f"{key}: {value} is wrong; allowed (is|are) .*{allowed}.*", problem)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["model=hf"], "model.path: is missing; give it as model.path=VALUE"),
        (["prune.target_ratio=???"], "prune.target_ratio: is missing; give it as .*=VALUE"),
        (["~prune.target_ratio"], "prune.target_ratio: is missing; give it as .*=VALUE"),
        (["calibration=ptb"], "calibration.path: .*needs a local file: calibration.path=FILE"),
        (["calibration=text"], "calibration.path: .*needs a local file: calibration.path=FILE"),
        (["calibration=tokens"], "calibration.path: .*needs a local file: calibration.path=FILE"),
    ],
)
def test_a_value_that_is_missing_is_asked_for(overrides: list[str], problem: str) -> None:
    (only,) = refused(*overrides)
    assert re.fullmatch(problem, only)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("+model.pth=hunter2", "model.pth: no such key; did you mean model.path?"),
        ("+prune.traget_ratio=hunter2", "prune.traget_ratio: no such key; did you mean prune.tar"),
        ("+score.enable=hunter2", "score.enable: no such key; did you mean score.enabled?"),
        ("+zzz=hunter2", "zzz: no such key"),
        ("+wandb={key:hunter2}", "wandb: no such key"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one_and_never_with_its_value(
    override: str, problem: str
) -> None:
    (only,) = refused(override)
    assert only.startswith(problem)
    assert "hunter2" not in only


@pytest.mark.parametrize("name", ["batch", "prompt_tokens", "output_tokens"])
def test_a_key_that_moved_is_answered_with_what_to_type(name: str) -> None:
    now = f"probe.workloads.default.{name}"
    assert refused(f"+probe.{name}=4") == [f"probe.{name}: is {now} now; type {now}=VALUE"]


def test_workloads_are_named_by_the_user() -> None:
    config = configured("probe=latency", "probe.workloads.default.batch=2",
                        "+probe.workloads.chat={prompt_tokens: 9}")  # fmt: skip
    workloads = config.of(ProbeConfig).workloads
    assert list(workloads) == ["default", "chat"]
    assert [(w.batch, w.prompt_tokens) for w in workloads.values()] == [(2, 128), (1, 9)]
    one = configured("probe=latency", "+probe.workloads.chat.batch=3").of(ProbeConfig)
    assert one.workloads["chat"].batch == 3


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("+probe.workloads.default.bach=2", "probe.workloads.default.bach: no such key"),
        ("probe.workloads.default.batch=0", "probe.workloads.default.batch: 0 is wrong; allowed"),
        ("+probe.workloads={a b: {batch: 1}}", "probe.workloads.a b"),
    ],
)
def test_a_workload_that_is_wrong_is_named(override: str, problem: str) -> None:
    (only,) = refused("probe=latency", override)
    assert only.startswith(problem)


def test_several_values_without_a_sweep_are_answered_with_what_to_type() -> None:
    (problem,) = problems_of(lambda: compose_overrides(["calibration.path=a,b.txt"]))
    assert problem == (
        "calibration.path: a,b.txt are several values; a run for each: python launch.py -m "
        "calibration.path=a,b.txt; a list of them: 'calibration.path=[a,b.txt]'; one text: "
        "'calibration.path=\"a,b.txt\"'"
    )


def test_an_unknown_key_that_is_like_no_other_gets_no_suggestion() -> None:
    assert refused("+zzz=1") == ["zzz: no such key"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    problems = refused(
        "model=hf",
        "model.dtype=float64",
        "calibration.seqlen=1",
        "prune.target_ratio=nan",
        "prune.distribution=[1,2]",
        "prune.mlp_group_size=0.5",
        "+prune.group=3",
        "run.name=a/b",
        "~store",
    )
    assert sorted(problem.partition(":")[0] for problem in problems) == [
        "calibration.seqlen",
        "model.dtype",
        "model.path",
        "prune.distribution",
        "prune.group",
        "prune.mlp_group_size",
        "prune.target_ratio",
        "run.name",
        "store",
    ]


def test_a_missing_calibration_file_is_named_together_with_other_wrong_calibration_keys() -> None:
    problems = refused("calibration=text", "calibration.seqlen=1")
    assert sorted(p.partition(":")[0] for p in problems) == [
        "calibration.path",
        "calibration.seqlen",
    ]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (f"calibration.path={SECRET}", "calibration.path"),
        (f"model.path=https://user:{SECRET}@host/model", "model.path"),
        ("model.revision=${oc.env:WANDB_API_KEY}", "model.revision"),
        (f"run.name={SECRET}", "run.name"),
    ],
)
def test_a_value_that_holds_a_secret_is_refused_without_showing_it(
    override: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    (problem,) = refused(override)
    assert problem.startswith(f"{key}: ")
    assert "WANDB_API_KEY" in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "override",
    [
        f"model.dtype={SECRET}",
        f"prune.target_ratio={SECRET}",
        f"prune.distribution={SECRET}",
        f"prune.distribution=[{SECRET},1,1]",
        f"run.name=/{SECRET}",
        f"++score={SECRET}",
    ],
)
def test_a_secret_is_not_shown_where_the_value_is_wrong_for_its_key(
    override: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    assert SECRET not in "\n".join(refused(override))


def test_a_variable_too_short_for_a_secret_forbids_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "folder")
    assert configured("model=hf", "model.path=folder").model.path == "folder"


EXPORTS = f"export=[{','.join(targets())}]"


def test_every_known_key_is_in_a_file_of_conf() -> None:
    def keys(settings: dict[str, Any], prefix: str = "") -> set[str]:
        parts = (
            keys(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value and prefix + key not in known_keys()
            else {prefix + key}
            for key, value in settings.items()
        )
        return set().union(*parts)

    common = ("evaluate=none", "cluster=slurm", EXPORTS)
    options = [f"prune={name}" for name in methods()] + [f"recover={name}" for name in techniques()]
    of_all = (raw(*common, option) for option in options)
    assert set().union(*(keys(OmegaConf.to_container(each)) for each in of_all)) == {
        key for key in known_keys() if not key.startswith("cluster.stages.")
    }


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("plan=1",), "plan: 1 is wrong; allowed is true, false or json"),
        (
            ("cluster=slurm", "cluster.constraint='a\nb'"),
            "cluster.constraint: 'a\\nb' is wrong; allowed is text in one line, without control "
            "characters",
        ),
        (
            ("cluster=slurm", "+cluster.parameters={nice: [1]}"),
            "cluster.parameters.nice: [1] is wrong; allowed is text or a whole number or a number "
            "or true or false",
        ),
        (
            ("run.name=a/b",),
            "run.name: 'a/b' is wrong; allowed is letters, digits, '.', '_' and '-', a letter or "
            "digit first",
        ),
        (("run.dir=''",), "run.dir: '' is wrong; allowed is text that is not empty"),
    ],
)
def test_a_wrong_value_has_one_message_in_the_words_of_its_own_key(
    overrides: tuple[str, ...], said: str
) -> None:
    assert refused(*overrides) == [said]


@pytest.mark.parametrize("value", ["a\0b", "a\udcffb"])
def test_what_no_path_or_page_can_hold_is_no_text(value: str) -> None:
    (said,) = refused(f"run.dir='{value}'")
    assert said == f"run.dir: {value!r} is no text: it holds a NUL or bytes that are not UTF-8"
