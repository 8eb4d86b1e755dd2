"""Compensation in closed form, against the formulas written out on the stock model in float64."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support_inputs import CONF
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    PretrainedConfig,
)

from pipeline.errors import StageError
from pipeline.models.loading import LiveModel
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import ModelSource
from pipeline.models.variants import dense_lineage
from pipeline.pruning.state import PruningState
from pipeline.recovery import techniques
from pipeline.recovery.base import Examples, Progress, Recovering
from pipeline.recovery.compensate import CompensateConfig, guard

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
"""Two key/value heads, each with two query heads of four channels."""
Piece = tuple[str, int]
"""Attention or MLP, and a layer."""
CUT: dict[Piece, int] = {
    ("attn", 0): 0,
    ("mlp", 1): 8,
    ("attn", 2): 8,
    ("mlp", 2): 0,
    ("attn", 3): 0,
}
"""Widths that are left; 0 where a block is gone: the first of all, and two behind one another."""
FULL = {"attn": 16, "mlp": 12}
PIECES = [(kind, layer) for layer in range(4) for kind in ("attn", "mlp")]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny matrices gain nothing from threads."""
    torch.set_num_threads(1)


def random_ids(seed: int, *shape: int) -> Tensor:
    return torch.randint(61, shape, generator=torch.Generator().manual_seed(seed))


def stock(config: PretrainedConfig | None = None, **values: Any) -> Any:
    """A random model in float64 in which every block matters."""
    config = config or LlamaConfig(**SIZES | values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    model = model.eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.3, generator=generator)
    return model


def examples(ids: Tensor, lengths: list[int] | None = None) -> Examples:
    lengths = lengths or [ids.shape[1]] * len(ids)
    return Examples(ids, torch.tensor(lengths), torch.ones_like(ids, dtype=torch.bool))


class Job:
    """A pruned model that is compensated, without a stage."""

    def __init__(
        self,
        build: Callable[[], Any] = stock,
        cut: Mapping[Piece, int] = CUT,
        train: Tensor | None = None,
        lengths: list[int] | None = None,
        held_out: Mapping[str, Tensor] | None = None,
        place: str | None = None,
        **settings: Any,
    ) -> None:
        def load(_: object) -> PrunableModel:
            model = PrunableModel(build())
            if place:
                model.offload(torch.device("cpu"), "disk")
            return model

        self.examples = examples(random_ids(1, 6, 12) if train is None else train, lengths)
        self.live = LiveModel(load, dense_lineage("files:test", reordered=False))
        self.variant = self.live.cut(cut_state(load(None), cut))
        self.warnings: list[str] = []
        self.progress: list[Progress] = []
        self.before = self.weights()
        self.live.forget()
        self.result = techniques()["compensate"].run(
            Recovering(
                live=self.live,
                variant=self.variant,
                source=None,  # type: ignore[arg-type]
                settings=CompensateConfig(**settings),
                train=self.examples,
                held_out={name: examples(ids) for name, ids in (held_out or {}).items()},
                seed=0,
                folder=Path(),
                note=lambda _: None,
                warn=self.warnings.append,
                progress=self.progress.append,
            )
        )

    def weights(self) -> dict[str, Tensor]:
        weights = self.live.at(self.variant).weights()
        return {name: each.detach().clone() for name, each in weights.items()}

    def logits(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.live.at(self.variant).model(ids, use_cache=False).logits
            return logits

    @property
    def others(self) -> set[str]:
        """Names of the weights that are not what they were, to the last bit."""
        after = self.weights()
        return {name for name, each in self.before.items() if not each.equal(after[name])}


def cut_state(model: PrunableModel, cut: Mapping[Piece, int]) -> PruningState:
    widths = {kind: [FULL[kind]] * 4 for kind in FULL}
    for (kind, layer), width in cut.items():
        widths[kind][layer] = width or FULL[kind]
    gone = {
        kind: tuple(i for (k, i), width in cut.items() if k == kind and not width) for kind in FULL
    }
    return dataclasses.replace(
        PruningState.dense(model.shape),
        removed_attn=gone["attn"],
        removed_mlp=gone["mlp"],
        attn_widths=tuple(widths["attn"]),
        mlp_widths=tuple(widths["mlp"]),
    )


def output_of(model: Any, piece: Piece) -> Any:
    """The layer that gives what a block adds."""
    layer = model.model.layers[piece[1]]
    return layer.self_attn.o_proj if piece[0] == "attn" else layer.mlp.down_proj


def name_of(piece: Piece, what: str = "weight") -> str:
    """As the live model's weights are called."""
    return f"{piece[0]}.{piece[1]}.body.{ {'attn': 'o_proj', 'mlp': 'down_proj'}[piece[0]] }.{what}"


def channels(model: Any, piece: Piece, hidden: Tensor) -> Tensor:
    """What enters the output layer of a block that is given hidden states."""
    seen = []
    output = output_of(model, piece)
    handle = output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    layer = model.model.layers[piece[1]]
    if piece[0] == "attn":
        places = torch.arange(hidden.shape[1])[None]
        rotary = model.model.rotary_emb(hidden, places)
        layer.self_attn(
            layer.input_layernorm(hidden), position_embeddings=rotary, attention_mask=None
        )
    else:
        layer.mlp(layer.post_attention_layernorm(hidden))
    handle.remove()
    return seen[0]


def ridge(known: Tensor, wanted: Tensor, damping: float) -> Tensor:
    """Ridge regression as plain least squares with a row more for each feature."""
    features = known.shape[1]
    strength = damping * known.square().sum() / features
    rows = strength.sqrt() * torch.eye(features).double()
    zeros = torch.zeros(features, wanted.shape[1]).double()
    found: Tensor = torch.linalg.lstsq(
        torch.cat([known, rows]), torch.cat([wanted, zeros])
    ).solution
    return found


def runs(cut: Mapping[Piece, int]) -> list[tuple[Piece | None, list[Piece]]]:
    """Every kept block with the removed ones right behind it; None: before all."""
    found: list[tuple[Piece | None, list[Piece]]] = [(None, [])]
    for piece in PIECES:
        if cut.get(piece) == 0:
            found[-1][1].append(piece)
        else:
            found.append((piece, []))
    return found


def oracle(
    model: Any, text: Examples, cut: Mapping[Piece, int], how: CompensateConfig
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Output layers as they should become, and the factors of the removed blocks.

    Where there is a bias it is one more row, with an input that is always 1.
    """
    counted = torch.arange(text.ids.shape[1]) < text.lengths[:, None]
    counted[:, 0] = False
    pruned = dense = model.model.embed_tokens(text.ids)
    factor, factors, weights = 1.0, {}, {}
    everywhere = (how.streams, how.blocks) == ("sequential", "all")

    def known(piece: Piece, hidden: Tensor, width: int) -> tuple[Tensor, Tensor]:
        output = output_of(model, piece)
        inputs, rows = channels(model, piece, hidden)[..., :width], output.weight[:, :width].T
        if output.bias is None:
            return inputs, rows
        ones = torch.ones_like(inputs[..., :1])
        return torch.cat([inputs, ones], -1), torch.cat([rows, output.bias[None]])

    def behind(piece: Piece, hidden: Tensor) -> Tensor:
        inputs, rows = known(piece, hidden, FULL[piece[0]])
        return hidden + inputs @ rows

    for piece, removed in runs(cut):
        entered, before = (pruned if how.streams == "sequential" else dense / factor), factor
        dense = behind(piece, dense) if piece else dense
        for gone in removed:
            after = behind(gone, dense)
            ratio = (after[counted].abs().sum(0) / dense[counted].abs().sum(0)).mean().item()
            factors[f"{gone[0]}.{gone[1]}"] = ratio if "scalar" in how.mode else 1.0
            factor *= factors[f"{gone[0]}.{gone[1]}"]
            dense = after
        if piece is None:
            continue
        width = cut.get(piece, FULL[piece[0]])
        inputs, rows = known(piece, entered, width)
        rows = rows / before
        if "ls" in how.mode and (everywhere or removed or piece in cut):
            error = dense / factor - entered - inputs @ rows
            rows = rows + ridge(inputs[counted], error[counted], how.damping)
        pruned = pruned + inputs @ rows
        weights[name_of(piece)] = rows[:width].T
        if len(rows) > width:
            weights[name_of(piece, "bias")] = rows[width]
    return weights, factors if "scalar" in how.mode else {}


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"mode": "scalar"}, {}),
        ({"mode": "ls"}, {}),
        ({"mode": "ls", "streams": "dense"}, {}),
        ({"mode": "scalar+ls", "damping": 0.1}, {}),
        ({"mode": "scalar+ls", "streams": "dense"}, {"attention_bias": True, "mlp_bias": True}),
        ({"mode": "scalar+ls", "blocks": "changed"}, {"attention_bias": True, "mlp_bias": True}),
    ],
    ids=str,
)
def test_output_layers_become_what_the_formulas_say(
    settings: dict[str, Any], values: dict[str, Any]
) -> None:
    """With padding in the text; all other weights stay as they are, to the last bit."""
    job = Job(lambda: stock(**values), lengths=[12, 12, 12, 9, 12, 7], guard=False, **settings)
    how = CompensateConfig(**settings)
    expected, factors = oracle(stock(**values), job.examples, CUT, how)
    after = job.weights()
    for name, weight in expected.items():
        assert_close(after[name], weight, rtol=1e-4, atol=1e-6)
    assert job.result["factors"] == pytest.approx(factors)
    assert job.others <= expected.keys()
    assert job.progress[-1].tokens == job.progress[-1].total_tokens == 58


@pytest.mark.parametrize("mode", ["scalar", "ls", "scalar+ls"])
def test_nothing_changes_where_nothing_was_removed(mode: str) -> None:
    assert not Job(cut={}, mode=mode).others


def test_no_block_changes_before_the_first_that_was_removed() -> None:
    job = Job(cut={("mlp", 2): 0}, mode="scalar+ls")
    assert job.others == {name_of(piece) for piece in [("attn", 2), ("attn", 3), ("mlp", 3)]}
    assert job.result["blocks_unchanged"] == ["attn.0", "mlp.0", "attn.1", "mlp.1"]


def test_endless_damping_leaves_the_cut_weights() -> None:
    job = Job(mode="ls", damping=1e14)
    after = job.weights()
    for name, weight in job.before.items():
        assert_close(after[name], weight, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "config", [LlamaConfig(**SIZES), GraniteConfig(**SIZES, residual_multiplier=0.4)]
)
def test_channels_that_were_copies_of_kept_ones_are_made_up_for(config: PretrainedConfig) -> None:
    """Of an MLP, and of an attention a key/value head with its query heads."""

    def with_copies() -> Any:
        model = stock(copy.deepcopy(config))
        mlp, attention = model.model.layers[1].mlp, model.model.layers[2].self_attn
        for rows in (mlp.gate_proj.weight, mlp.up_proj.weight):
            rows[6:] = rows[:6]
        for rows in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
            rows[len(rows) // 2 :] = rows[: len(rows) // 2]
        return model

    ids = random_ids(3, 2, 12)
    job = Job(
        with_copies,
        {("mlp", 1): 6, ("attn", 2): 8},
        random_ids(1, 30, 12),
        mode="ls",
        damping=1e-13,
    )
    assert_close(job.logits(ids), with_copies()(ids).logits, rtol=1e-6, atol=1e-6)


def test_factors_leave_tied_embeddings_alone() -> None:
    job = Job(lambda: stock(tie_word_embeddings=True), mode="scalar")
    assert job.others == {name_of(piece) for piece in PIECES if CUT.get(piece) != 0}


def test_dividing_later_blocks_is_multiplying_earlier_ones_and_the_embeddings() -> None:
    """The latter is how the paper has it; only the norms' epsilons tell them apart."""
    cut = {("attn", 1): 0, ("mlp", 2): 0}
    job, ids = Job(cut=cut, mode="scalar"), random_ids(3, 2, 12)
    paper = stock()
    for gone, alpha in job.result["factors"].items():
        kind, layer = gone.split(".")
        paper.model.embed_tokens.weight *= alpha
        for piece in PIECES[: PIECES.index((kind, int(layer)))]:
            output_of(paper, piece).weight.mul_(alpha)
    for piece in cut:
        output_of(paper, piece).weight.zero_()
    assert_close(job.logits(ids), paper(ids).logits, rtol=1e-4, atol=1e-4)
    assert len(job.result["factors"]) == 2


# ---- families with norms behind their output layers


def test_factors_go_into_a_norm_behind_the_output_layer() -> None:
    """Gemma's norms store the difference to 1; what a block adds is divided all the same."""

    def build() -> Any:
        return stock(Gemma2Config(**SIZES, head_dim=4, sliding_window=32))

    job = Job(build, {("mlp", 1): 0}, mode="scalar")
    (factor,) = job.result["factors"].values()
    block, same = job.live.at(job.variant).blocks[-1], PrunableModel(build()).blocks[-1]
    hidden = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(4)).double()
    added, wanted = block.residual(hidden, {}) * factor, same.residual(hidden, {})
    assert_close(added, wanted, rtol=1e-5, atol=1e-5)  # the norm computes in float32
    assert factor != 1
    assert {name.split(".")[2] for name in job.others} == {"norm_after"}


def test_regressions_are_refused_behind_such_a_norm(tmp_path: Path) -> None:
    Gemma2Config(**SIZES, head_dim=4).save_pretrained(tmp_path)
    source, refused = ModelSource(tmp_path, None, None), techniques()["compensate"].refused
    assert "recover.compensate.mode=scalar" in str(refused(source, CompensateConfig(), "none"))
    assert refused(source, CompensateConfig(mode="scalar"), "none") is None


# ---- the text, the guard, and where weights stay


def test_too_little_text_is_refused_or_told() -> None:
    with pytest.raises(StageError, match=r"recover\.compensate\.tokens=160 "):
        Job(train=random_ids(1, 1, 12))
    assert "better use recover.compensate.tokens=160" in Job(train=random_ids(1, 6, 12)).warnings[0]
    assert not Job(train=random_ids(1, 20, 12)).warnings
    assert not Job(train=random_ids(1, 1, 12), mode="scalar").warnings


def text_of(model: PrunableModel) -> Tensor:
    """What a model says itself: to no other is it as likely."""
    ids = random_ids(5, 6, 1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(50):
            chances = (3 * model.model(ids, use_cache=False).logits[:, -1]).softmax(-1)
            ids = torch.cat([ids, chances.multinomial(1, generator=generator)], dim=1)
    return ids


def test_weights_stay_where_compensating_harms_a_held_out_text() -> None:
    cut = PrunableModel(stock())
    cut.prune_to(cut_state(cut, CUT))
    own = text_of(cut)
    job = Job(mode="ls", held_out={"own": own}, damping=1e-4)
    assert not job.others
    assert "own" in job.warnings[-1]
    assert "the weights stay as they were" in job.warnings[-1]
    figures = job.result["held_out"]["own"]
    assert figures["before"] == figures["after"]
    unguarded = Job(mode="ls", held_out={"own": own}, damping=1e-4, guard=False)
    figures = unguarded.result["held_out"]["own"]
    assert figures["before"] < figures["after"]
    assert unguarded.others


def test_a_part_stays_where_only_that_harms_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Job(mode="ls")
    # of two texts before, after, and with a half, a quarter and nothing of the change
    figures = iter([20.0, 10.0, 15.0, 10.1, 14.0, 10.1, 16.0, 9.9, 20.0, 10.0])
    monkeypatch.setattr(guard, "perplexity", lambda *_: next(figures, 99.0))
    job = Job(mode="ls", held_out={"near": random_ids(1, 1, 4), "far": random_ids(2, 1, 4)})
    assert job.result["share"] == 0.25
    assert job.result["held_out"]["far"] == {"before": 10.0, "after": 9.9}
    assert "far 10 -> 10.1" in job.warnings[-1]
    after, changed = job.weights(), whole.weights()
    for name, cut in job.before.items():
        assert_close(after[name], 0.75 * cut + 0.25 * changed[name])


def test_a_block_that_does_harm_is_undone_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Job(mode="ls")
    changed = whole.result["blocks_changed"]

    def harmed(model: PrunableModel, _: object) -> float:
        weights = model.weights()
        differ = (n for n in whole.others if not weights[n].equal(whole.before[n]))
        others = {".".join(name.split(".")[:2]) for name in differ}
        return 10 + sum(4 if name == changed[1] else -0.5 for name in others)

    monkeypatch.setattr(guard, "perplexity", harmed)
    job = Job(mode="ls", held_out={"own": random_ids(1, 1, 4)})
    assert job.result["blocks_undone"] == [changed[1]]
    assert job.result["blocks_changed"] == [name for name in changed if name != changed[1]]
    assert job.result["held_out"]["own"] == {"before": 10, "after": 10 - 0.5 * (len(changed) - 1)}
    assert f"the regressions of 1 of {len(changed)} blocks are taken back" in job.warnings[-1]


def test_weights_that_stay_on_disk_become_the_same() -> None:
    there, here = Job(place="disk"), Job()
    after = there.weights()
    assert here.others
    assert all(each.equal(after[name]) for name, each in here.weights().items())


def test_its_yaml_opens_with_the_command() -> None:
    text = (CONF / "recover" / "compensate.yaml").read_text(encoding="utf-8")
    assert text.startswith("# python launch.py ")
    assert "recover=compensate" in text.splitlines()[0]
