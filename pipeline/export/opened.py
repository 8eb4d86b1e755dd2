"""Whether an exported folder opens elsewhere and answers as the live model does.

The folder is opened in a new process that cannot import this project.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import StageError
from pipeline.files import Json

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.export.base import Exporting

TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 3e-2}
"""Largest difference of logits relative to the largest logit, by number format."""
CACHED = 8
"""Tokens that are decoded one by one from the cache, all but one of a shorter window; beside the
one pass over all of them."""

SCRIPT = f"""
import sys
sys.path = [entry for entry in sys.path if entry]
sys.modules["pipeline"] = sys.modules["multipruner"] = None  # as where nobody has them
import torch
from safetensors.torch import load_file, save_file
import transformers
from transformers import logging
logging.set_verbosity_error()
logging.disable_progress_bar()
folder, dtype, device, auto, asked, answer = sys.argv[1:]
model, info = getattr(transformers, auto).from_pretrained(
    folder, dtype=dtype, trust_remote_code=True, output_loading_info=True
)
model.to(device)
wrong = [name for kind in ("missing", "unexpected", "mismatched") for name in info[kind + "_keys"]]
assert not wrong, f"weights that do not fit the configuration: {{wrong[:3]}}"
ids = load_file(asked)["ids"].to(device)
with torch.no_grad():
    whole = model(ids, use_cache=False).logits
    start = max(1, ids.shape[1] - {CACHED})
    parts = [model(ids[:, :start], use_cache=True)]
    for place in range(start, ids.shape[1]):
        parts.append(model(ids[:, place:place + 1], past_key_values=parts[-1].past_key_values))
    cached = torch.cat([part.logits for part in parts], dim=1)
save_file({{"whole": whole.float().cpu(), "cached": cached.float().cpu()}}, answer)
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two sets of logits are apart."""

    relative: float
    """Largest difference over the largest logit."""
    where: str
    """The first place where they differ by more than is allowed; empty where they do not."""


def check(
    folder: Path, dtype: str, ids: "Tensor", logits: "Tensor", auto: str = "AutoModelForCausalLM"
) -> float:
    """Compare the folder's logits on token ids ``[batch, tokens]`` with ``logits``.

    ``auto`` is the class of transformers that opens it.

    Returns the largest relative difference, of one pass and of decoding from the cache. Raises
    ``StageError`` with what came first where the folder does not open or answers otherwise.
    """
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as scratch:
        asked, answer = Path(scratch, "ids.safetensors"), Path(scratch, "logits.safetensors")
        save_file({"ids": ids.cpu().contiguous()}, asked)
        command = [sys.executable, "-c", SCRIPT, str(folder.absolute()), dtype]
        command += [ids.device.type, auto, str(asked), str(answer)]
        done = subprocess.run(  # noqa: S603 - our own script
            command, cwd=scratch, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise StageError(f"the exported model does not open: {last}")
        answers = load_file(answer)
    found = 0.0
    for how, words in (("whole", "in one pass"), ("cached", "from the cache")):
        difference = compare(answers[how], logits, TOLERANCE[dtype])
        if difference.where:
            raise StageError(
                f"the exported model answers otherwise than the live one {words}: its logits "
                f"differ by {difference.relative:.2g} of the largest, {TOLERANCE[dtype]:g} is "
                f"allowed; first at {difference.where}"
            )
        found = max(found, difference.relative)
    return found


def check_folder(exporting: "Exporting", folder: Path, dtype: str) -> dict[str, Json]:
    """Compare a folder with the live model that it was written from."""
    import torch

    from pipeline.models.loading import DTYPES

    live = exporting.packed.model
    if dtype != exporting.dtype:
        live = live.cast(DTYPES[dtype])
    ids = exporting.ids.to(live.device)
    with torch.no_grad():
        logits = live.model(ids, use_cache=False).logits
    differ_by = check(folder, dtype, ids, logits, exporting.packed.opens_with)
    return {"logits_differ_by": differ_by, "tokens": ids.numel()}


def compare(ours: "Tensor", theirs: "Tensor", allowed: float) -> Difference:
    """Two sets of logits ``[batch, tokens, vocabulary]``."""
    theirs = theirs.float().cpu()
    apart = (ours - theirs).abs() / theirs.abs().max()
    relative = float(apart.nan_to_num(nan=float("inf")).max())
    if relative <= allowed:
        return Difference(relative, "")
    beyond = (~(apart <= allowed)).any(dim=-1).nonzero()[0].tolist()
    return Difference(relative, f"token {beyond[1]} of window {beyond[0]}")
