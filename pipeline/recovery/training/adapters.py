"""What is trained of a model: its weights, or low-rank adapters beside them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.models.prunable import PrunableModel
from pipeline.models.tensors import wide

NAME = "default"
"""What peft calls the one set of adapters."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The model's own, a tied one once."""

    of_tokens: bool
    """Whether embeddings and output head are trained with the layers."""

    @contextmanager
    def open(self, model: PrunableModel) -> Iterator[Mapping[str, nn.Parameter]]:
        """What is trained, by name; all weights of 16 bits are in float32 meanwhile."""
        weights = model.weights()
        formats = {name: weight.dtype for name, weight in weights.items()}
        try:
            for weight in weights.values():
                weight.data = wide(weight.data)
            yield model.weights(of_tokens=self.of_tokens)
        finally:
            for name, weight in weights.items():
                weight.data = weight.data.to(formats[name])


@dataclass(frozen=True, slots=True)
class Adapters:
    """LoRA (arXiv 2106.09685) on every linear layer of the blocks, in float32."""

    rank: int
    alpha: int
    dropout: float
    seed: int

    @contextmanager
    def open(self, model: PrunableModel) -> Iterator[Mapping[str, nn.Parameter]]:
        """The adapters' weights, by name; they are merged in the end, whatever they are then."""
        from peft import LoraConfig, LoraModel
        from peft.tuners.lora import Linear

        torch.manual_seed(self.seed)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=model.linear_names(),
        )
        tuned = LoraModel(model.model, config, NAME)
        layers = [module for module in model.model.modules() if isinstance(module, Linear)]
        for layer in layers:
            layer.lora_dropout.train()
        named = model.model.named_parameters()
        adapters = {name: weight for name, weight in named if weight.requires_grad}
        try:
            for weight in adapters.values():
                weight.data = wide(weight.data)
            yield adapters
        finally:
            with torch.no_grad():
                for layer in layers:
                    weight = layer.get_base_layer().get_parameter("weight")
                    weight.copy_(wide(weight) + layer.get_delta_weight(NAME))
            tuned.unload()


Trained = Weights | Adapters


@contextmanager
def training(model: PrunableModel, trained: Trained) -> Iterator[Mapping[str, nn.Parameter]]:
    """What is trained, by name, with gradients; the model is left as it was but for its values."""
    with trained.open(model) as parameters:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        try:
            yield parameters
        finally:
            for parameter in parameters.values():
                parameter.requires_grad_(False)
                parameter.grad = None
