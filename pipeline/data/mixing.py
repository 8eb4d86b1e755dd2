"""Windows of rows that come in a seeded order, as long as there are some."""

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from pipeline.data.windows import cut
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RowsInOrder:
    """The rows of a source in an order that ``seed`` decides, as tokens.

    ``key`` is what configures the source. ``rows`` by their numbers; those in ``taken`` are left
    out. Every window begins with the ids ``begin``.
    """

    def __init__(
        self,
        key: str,
        rows: Mapping[int, str] | Sequence[str],
        seed: int,
        tokenizer: "PreTrainedTokenizerBase",
        taken: frozenset[int] = frozenset(),
        begin: Sequence[int] = (),
    ) -> None:
        self._key, self._tokenizer, self._begin = key, tokenizer, begin
        numbered = rows if isinstance(rows, Mapping) else dict(enumerate(rows))
        self._rows = numbered
        order = random.Random(seed).sample(list(numbered), len(numbered))  # noqa: S311
        self._left = iter([number for number in order if number not in taken])
        self._numbers: list[int] = []

    def windows(self, seqlen: int, tokens: int, least: int = 1) -> Tensor:
        """Full windows ``[windows, seqlen]`` of the next rows, each followed by the end's token.

        Raises ``ConfigError`` where they are fewer than ``least``.
        """
        room = seqlen - len(self._begin)
        most = max(tokens // seqlen, least)
        wanted = most * room
        end = self._tokenizer.eos_token_id
        ids: list[int] = []
        while len(ids) < wanted and (number := next(self._left, None)) is not None:
            self._numbers.append(number)
            row = self._tokenizer(self._rows[number], add_special_tokens=False, verbose=False)
            ids += [*row["input_ids"], *([] if end is None else [end])]
        windows = cut(ids, seqlen, most, self._begin)
        if len(windows) < least:
            raise ConfigError(
                [
                    f"{self._key}: {len(ids)} tokens are left after what was taken before, e.g. as "
                    f"held-out text, and {least * seqlen} are needed; give more text, or lower "
                    "seqlen or held_out_tokens"
                ]
            )
        return windows

    def read(self) -> list[int]:
        """The numbers of the rows that were read since the last call."""
        numbers, self._numbers = self._numbers, []
        return numbers
