"""Whether llama.cpp makes of a GGUF file what the live model is."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.errors import StageError
from pipeline.export.base import Exporting
from pipeline.export.gguf.sample_texts import sample_texts
from pipeline.export.gguf.tokenizer import known_differences
from pipeline.export.llama_cpp import asking
from pipeline.export.llama_cpp.engine import why_not
from pipeline.files import Json

if TYPE_CHECKING:
    from pipeline.models.prunable import PrunableModel
    from pipeline.models.source import ModelSource

TOLERANCE = {"f32": 1e-3, "f16": 5e-3, "bf16": 3e-2}
"""Largest difference of logits over their range, by the file's format."""
MOST_DIVERGENCE = {"q8_0": 0.1, "q5_1": 1.0, "q5_0": 1.0, "q4_1": 1.0, "q4_0": 1.5}
"""Nats, of formats that round more. SmolLM2-135M has 0.006 to 0.4 dense and 0.009 to 0.5 pruned; a
file that is wrong has several."""
LIVE_TOLERANCE = {"float32": 1e-3, "float16": 5e-3, "bfloat16": 3e-2}
"""What a live model of a number format differs by from its own weights in float32."""
CACHED = 8
"""Tokens at the end of each window that are decoded one by one."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far llama.cpp's logits are from the live model's."""

    relative: float
    """Largest difference over the range of the live model's logits."""
    divergence: float
    """Mean Kullback-Leibler divergence of llama.cpp's next-token distribution, in nats."""
    same_choice: float
    """Share of places where the most likely next token is the same."""
    where: str
    """The first place with more than is allowed, in words; empty where there is none."""


def check(exporting: Exporting, path: Path) -> dict[str, Json]:
    """Open a file in llama.cpp, where that is there, and compare logits and token ids.

    Raises ``StageError`` with what came first where they differ.
    """
    if reason := why_not():
        exporting.note(f"export=gguf: not opened in llama.cpp: {reason}")
        return {"checked": f"not opened in llama.cpp: {reason}"}
    dtype, ids = exporting.settings.dtype, exporting.ids
    logits = _logits(exporting.packed.model, ids)
    allowed = None
    if dtype in TOLERANCE:
        allowed = max(TOLERANCE[dtype], LIVE_TOLERANCE[exporting.dtype])
    found = compare_logits(path, ids, logits, allowed)
    where = found.where
    if dtype in MOST_DIVERGENCE and not found.divergence <= MOST_DIVERGENCE[dtype]:
        where = (
            f"by {found.divergence:.2g} nats, {MOST_DIVERGENCE[dtype]:g} are allowed for {dtype}"
        )
    if where:
        raise StageError(
            f"export=gguf: llama.cpp answers otherwise than the live model, {where}; not published"
        )
    texts = compare_tokens(path, exporting.source) if exporting.source.tokenizer_files else 0
    return {
        "checked": "opened in llama.cpp",
        "logits_differ_by": found.relative,
        "divergence_nats": found.divergence,
        "same_choice": found.same_choice,
        "tokens": ids.numel(),
        "texts": texts,
    }


def divergence(path: Path, live: "PrunableModel", ids: Tensor) -> float:
    """Of a file from the model that it was written from, in nats.

    Mean over token ids ``[windows, tokens]``.
    """
    return compare_logits(path, ids, _logits(live, ids), None).divergence


def _logits(live: "PrunableModel", ids: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = live.model(ids.to(live.device), use_cache=False).logits
    return logits


def compare_logits(path: Path, ids: Tensor, logits: Tensor, allowed: float | None) -> Comparison:
    """Compare with the live model's logits ``[windows, tokens, vocabulary]`` of ids.

    A place is wrong whose logits differ by more than ``allowed`` of the logits' range, or whose
    most likely token is another though it leads by more than that. None allows everything.
    """
    answered = asking.logits(path, ids.tolist(), one_by_one=CACHED, threads=torch.get_num_threads())
    return compare(torch.from_numpy(answered), logits.float().cpu(), allowed)


def compare(ours: Tensor, theirs: Tensor, allowed: float | None) -> Comparison:
    """Logits ``[windows, tokens, vocabulary]`` of llama.cpp and of the live model."""
    span = theirs.max() - theirs.min()
    apart = ((ours - theirs).abs().amax(dim=-1) / span).nan_to_num(nan=float("inf"))
    best = theirs.topk(2, dim=-1)
    same = ours.argmax(dim=-1) == best.indices[..., 0]
    divergence = torch.nn.functional.kl_div(
        ours.log_softmax(-1), theirs.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    where = ""
    if allowed is not None:
        leads = (best.values[..., 0] - best.values[..., 1]) / span > allowed
        where = _first(apart, leads & ~same, allowed)
    return Comparison(
        float(apart.max()), float(divergence.mean()), float(same.float().mean()), where
    )


def _first(apart: Tensor, chosen_otherwise: Tensor, allowed: float) -> str:
    places = ((apart > allowed) | chosen_otherwise).nonzero().tolist()
    if not places:
        return ""
    window, token = places[0]
    return (
        f"first at token {token} of window {window}: logits differ by {apart[window, token]:.2g} "
        f"of their range, {allowed:g} is allowed"
        + (", and another token is the most likely" if chosen_otherwise[window, token] else "")
    )


def compare_tokens(path: Path, source: "ModelSource") -> int:
    """Compare the ids of texts, and tell how many those were.

    Raises ``StageError`` with the first text that becomes other ids, unless the tokenizer is one of
    which llama.cpp is known to treat some texts otherwise.
    """
    texts = sample_texts()
    for text, found in zip(texts, asking.tokenized(path, texts), strict=True):
        expected = source.own_tokenizer.encode(text)
        if found != expected and not known_differences(source):
            at = next(
                (
                    i
                    for i, pair in enumerate(zip(found, expected, strict=False))
                    if len({*pair}) > 1
                ),
                min(len(found), len(expected)),
            )
            raise StageError(
                f"export=gguf: llama.cpp makes other ids of a text, first {found[at : at + 3]} "
                f"instead of {expected[at : at + 3]} in {text[:60]!r}; not published"
            )
    return len(texts)
