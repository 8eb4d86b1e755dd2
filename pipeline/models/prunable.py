"""The live model: a Hugging Face model that is always physically pruned."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.models.blocks import Block, Context
from pipeline.models.families import family_of
from pipeline.models.families.base import Family
from pipeline.models.modelling import opener
from pipeline.models.offload import Place, move_all_but, offloaded, put_in_order
from pipeline.models.ordering import ChannelOrder
from pipeline.pruning.shape import BLOCK_KINDS, BarredUnit, LayerShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import MLP_WIDTH

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

NOT_INSIDE = (
    "its MLPs are mixtures of experts, in which channels go of all experts of a layer at once; "
    "prune=multipruner does that"
)


@dataclass(frozen=True, slots=True)
class DecoderInput:
    """What enters the decoder's blocks for one batch of tokens."""

    hidden: Tensor
    """Embedded tokens ``[batch, tokens, hidden]``."""
    contexts: list[Context]
    """For each block of ``PrunableModel.blocks`` what its layer is called with."""


class PrunableModel:
    """Wraps a loaded model. ``model`` stays a working Hugging Face model at every state.

    The decoder's layers are replaced by groups of blocks, one group per attention that is still
    there: the attention and the MLPs that follow it. So the decoder has as many layers as the KV
    cache has, and masks, layer types and cached lengths stay right whichever attention was removed,
    the first included. ``output_hidden_states`` gives nothing: it looks for the family's layers.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model = model.eval().requires_grad_(False)
        self.family = family_of(model.config.model_type)
        for name in self.family.losses:
            setattr(self.text_config, name, False)
        self._decoder: nn.Module = model.get_submodule(self.family.decoder)
        self.final_norm = self._decoder.get_submodule(self.family.final_norm)
        self._head = model.get_submodule(self.family.head)
        self._listed = self.family.listed(model.config)
        self.layer_class = type(getattr(self._decoder, self.family.layers)[0])
        """Made of the language model's configuration and the layer's number."""
        self.blocks = _blocks_of(model, self.family)
        self.shape = _shape_of(model, self.family, self.blocks)
        self.state = PruningState.dense(self.shape)
        self._regroup()
        setattr(model, "save_pretrained", _refuse_to_save)  # noqa: B010 - the instance's alone

    @property
    def device(self) -> torch.device:
        """Where the model computes: where its embeddings are."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def text_config(self) -> "PretrainedConfig":
        """The Hugging Face configuration that the decoder reads: as many layers as are called."""
        config: PretrainedConfig = self.family.text(self.model.config)
        return config

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.family.hidden_size(self.model.config)

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids; the ids run from 0."""
        return self.family.vocabulary_size(self.model.config)

    @property
    def context_length(self) -> int | None:
        """Most tokens that a sequence may have; None where the configuration does not say."""
        return self.family.context_length(self.model.config)

    def offload(self, device: torch.device, place: Place) -> None:
        """Compute on ``device`` with the blocks' weights in ``place``, brought as they run.

        Embeddings, final norm, head and buffers move to the device. Raises ``StageError`` where the
        disk has no room, ``torch.OutOfMemoryError`` where the device has none for two blocks.
        """
        move_all_but(self.blocks, self.model, device)
        streamed = offloaded(self.blocks, device, place)
        for block, weights in zip(self.blocks, streamed, strict=True):
            block.offloaded = weights
        put_in_order(streamed)

    def reorder(self, order: ChannelOrder | None = None) -> None:
        """Put the most important channels and heads of every block first; None: by L1 norms.

        Experts of mixtures are put in order where ``order`` says so, else they stay.
        An order with means gives the blocks biases that make up for what is cut.
        """
        for block in self.blocks:
            if block.is_mixture and (order is None or block.name not in order.groups):
                continue
            block.reorder(order.groups[block.name] if order else None)
            if order and order.means:
                means = torch.tensor(order.means[block.name]).unflatten(0, (block.groups, -1))
                block.add_biases(means[list(order.groups[block.name])].flatten().tolist())
        if order and order.means:
            for flag in self.family.bias_flags:
                setattr(self.text_config, flag, True)

    def prune_to(self, state: PruningState) -> None:
        """Remove what ``state`` lacks. It must be reachable from the present state."""
        assert self.state.can_become(state), "what was removed cannot come back"
        gone = {("attn", i) for i in state.removed_attn} | {("mlp", i) for i in state.removed_mlp}
        kept = [block for block in self.blocks if (block.kind, block.layer) not in gone]
        for block in kept:
            width = state.widths(block.kind)[block.layer]
            if width < block.width:
                block.cut(width)
            if block.inside and state.inside[block.layer] < block.inside:
                block.cut_inside(state.inside[block.layer])
        if len(kept) < len(self.blocks):
            self.blocks = kept
            put_in_order([block.offloaded for block in kept])
            self._regroup()
        self.state = state

    def weights(self, *, of_tokens: bool = True) -> dict[str, nn.Parameter]:
        """Every weight by a name that stays whatever is removed: ``BLOCK.`` and its name inside.

        A block's weights are where they are kept; tied weights come once. Without ``of_tokens``
        embeddings and output head are left out.
        """
        of_blocks = {
            id(parameter): f"{block.name}.{name}"
            for block in self.blocks
            for name, parameter in block.named_parameters()
        }
        named: Iterator[tuple[str, nn.Parameter]] = self.model.named_parameters()
        left_out = set() if of_tokens else {id(each) for each in self._weights_of_tokens()}
        return {
            of_blocks.get(id(each), name): each for name, each in named if id(each) not in left_out
        }

    def _weights_of_tokens(self) -> Iterator[nn.Parameter]:
        embeddings = [each for each in self.model.modules() if isinstance(each, nn.Embedding)]
        for module in (*embeddings, self.model.get_output_embeddings()):
            yield from module.parameters()

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Give weights other values, by the names of ``weights``; the others stay."""
        for block in self.blocks:
            if block.offloaded:
                block.offloaded.put_back()
        own = self.weights()
        for name, value in values.items():
            own[name].data = value.to(own[name])
        for block in self.blocks:
            if block.offloaded:
                block.offloaded.keep(block.parameters())

    def cast(self, dtype: torch.dtype) -> "PrunableModel":
        """A copy of the live model with its weights in another format."""
        for block in self.blocks:
            if block.is_mixture:
                block.best_inside()  # of these weights: both are to lose the same channels
        weights = {
            id(p): nn.Parameter(p.to(dtype), requires_grad=False) for p in self.model.parameters()
        }
        twin = copy.deepcopy(self, dict(weights))
        twin.model.config.dtype = dtype
        return twin

    @torch.no_grad()
    def decoder_input(self, ids: Tensor) -> DecoderInput:
        """Embed token ids ``[batch, tokens]`` and collect what the decoder hands to each layer.

        The model's own forward pass runs with its layers replaced by recorders, so that embedding
        scales, rotary embeddings and masks of any family are its own.
        """
        groups = getattr(self._decoder, self.family.layers)
        recorders = [_Recorder() for _ in groups]
        setattr(self._decoder, self.family.layers, nn.ModuleList(recorders))
        try:
            self._decoder(input_ids=ids, use_cache=False)
        finally:
            setattr(self._decoder, self.family.layers, groups)
        contexts = [
            recorder.context
            for recorder, group in zip(recorders, groups, strict=True)
            for _ in group.blocks
        ]
        return DecoderInput(recorders[0].hidden, contexts)

    def hidden(self, ids: Tensor) -> Tensor:
        """Normed hidden states ``[batch, tokens, hidden]`` of token ids, for ``logits``.

        Unlike ``decoder_input`` and the blocks one by one, it may be differentiated as a whole.
        """
        out: Tensor = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
        return out

    def linear_names(self) -> list[str]:
        """Where in ``model`` the linear layers of the blocks are that are still there."""
        linears = {id(linear) for block in self.blocks for linear in block.linears}
        return [name for name, module in self.model.named_modules() if id(module) in linears]

    def normed(self, hidden: Tensor) -> Tensor:
        """The final norm of the last block's hidden states."""
        out: Tensor = self.final_norm(hidden)
        return out

    def logits(self, normed: Tensor) -> Tensor:
        """Vocabulary logits of normed hidden states."""
        out: Tensor = self._head(normed)
        scale = self.family.logit_scale(self.model.config)
        cap = self.family.cap_of_logits(self.model.config)
        out = out if scale == 1 else out * scale
        return out if cap is None else torch.tanh(out / cap) * cap

    def _regroup(self) -> None:
        groups: list[list[Block]] = [[]]
        seen_attention = False
        for block in self.blocks:
            if block.kind == "attn" and seen_attention:
                groups.append([])
            seen_attention = seen_attention or block.kind == "attn"
            groups[-1].append(block)
        setattr(self._decoder, self.family.layers, nn.ModuleList(map(BlockGroup, groups)))
        attentions = [b for b in self.blocks if b.kind == "attn"]
        for index, block in enumerate(attentions):
            setattr(block.body, "layer_idx", index)  # noqa: B010 - the cache's index of this attention
        config = self.text_config
        for name, of_layers in self._listed.items():
            setattr(config, name, [of_layers[b.layer] for b in attentions] or of_layers[:1])
        config.num_hidden_layers = len(groups)


def _refuse_to_save(*_: Any, **__: Any) -> None:
    """What would be written opens as another model, with random weights."""
    raise StageError(
        "the live model's layers have names that no other program knows; to take it along type: "
        "multipruner export RUN --to hf"
    )


class BlockGroup(nn.Module):
    """What the decoder calls as one layer: an attention and the MLPs up to the next attention."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, hidden_states: Tensor, **context: Any) -> Tensor:
        """Run the blocks in order; ``context`` is what the decoder gives to its layers."""
        for block in self.blocks:
            hidden_states = block(hidden_states, context)
        return hidden_states


class _Recorder(nn.Module):
    """Stands in for a layer, keeps what it was called with, and passes the hidden states on."""

    hidden: Tensor
    context: Context

    def forward(self, hidden_states: Tensor, **context: Any) -> Tensor:
        self.hidden, self.context = hidden_states, context
        return hidden_states


def shape_from_config(config: "PretrainedConfig") -> ModelShape:
    """Parameter counts of the dense model from its configuration alone: no weights, no memory."""
    family = family_of(config.model_type)
    with torch.device("meta"):
        model = opener(config).from_config(config)
    return _shape_of(model, family, _blocks_of(model, family))


def _blocks_of(model: "PreTrainedModel", family: Family) -> list[Block]:
    layers = model.get_submodule(family.decoder).get_submodule(family.layers)
    described = zip(layers.children(), family.describe(model.config), strict=True)
    return [
        Block(kind, index, layer, block)
        for index, (layer, description) in enumerate(described)
        for kind in BLOCK_KINDS
        if (block := description.block(kind))
    ]


def _shape_of(model: "PreTrainedModel", family: Family, blocks: list[Block]) -> ModelShape:
    shapes = {(block.kind, block.layer): block.shape() for block in blocks}
    layers = range(len(family.describe(model.config)))
    mixtures = [block.is_mixture for block in blocks if block.kind == "mlp"]
    inside = [BarredUnit(MLP_WIDTH.name, NOT_INSIDE)] if mixtures and all(mixtures) else []
    return ModelShape(
        tuple(LayerShape(shapes.get(("attn", i)), shapes.get(("mlp", i))) for i in layers),
        total_params=sum(p.numel() for p in model.parameters()),
        barred=(*family.barred, *inside),
    )
