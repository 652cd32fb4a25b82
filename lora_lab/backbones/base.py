"""The frozen image encoder, and what it says about a picture."""

import copy
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

Deltas = Mapping[str, Tensor]
"""ΔW (out, in) by the name of its target module."""


KEY_AND_VALUE = ("k_proj", "v_proj", "key", "value")


@dataclass(frozen=True)
class Features:
    """What the backbone gives for B crops: the pooled class token after the last norm, and the N patch tokens."""

    pooled: Float[Tensor, "B D"]
    patches: Float[Tensor, "B N D"]


@dataclass(frozen=True, eq=False)
class Embedded:
    """Crops with the tokens that the first layer reads of them, which no delta changes."""

    pixels: Float[Tensor, "B 3 H W"]
    tokens: Float[Tensor, "B T D"]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice) -> "Embedded":
        return Embedded(self.pixels[rows], self.tokens[rows])


def joined(parts: Sequence[Features]) -> Features:
    """Features of several batches as those of one."""
    return Features(torch.cat([part.pooled for part in parts]), torch.cat([part.patches for part in parts]))


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pretrained encoder whose weights are never written to.

    `image_size` is the side of the square input in pixels; `mean` and `std` normalise RGB in 0–1; `fingerprint` is the
    SHA-256 of names and weights in float32, and binds adapters to the weights that they were trained on. A copy in another
    precision keeps the target modules' `originals`, so that W₀ + ΔW is formed from them and rounded once.
    """

    name: str
    module: nn.Module
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str
    licence: str
    originals: Mapping[str, Tensor] = field(default_factory=dict)
    # Made with the backbone, for two threads that begin at once would each make their own.
    _shells: threading.local = field(default_factory=threading.local, init=False, repr=False)

    @property
    def width(self) -> int:
        """D, the length of the pooled feature."""
        return self.module.config.hidden_size  # type: ignore[union-attr, return-value]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @cached_property
    def target_modules(self) -> tuple[str, ...]:
        """Names of the key and value projections, layer by layer."""
        names = (name for name, module in self.module.named_modules() if isinstance(module, nn.Linear))
        return tuple(name for name in names if name.rsplit(".", 1)[-1] in KEY_AND_VALUE)

    def weight(self, target: str) -> Float[Tensor, "out in"]:
        """W₀ of a target module as it was before any rounding, to read only."""
        return self.originals[target] if target in self.originals else self.module.get_parameter(f"{target}.weight")

    def preprocess(self, images: Sequence[Image.Image]) -> Float[Tensor, "B 3 H W"]:
        """RGB crops, resized to the input size where they are not, normalised as the backbone expects."""
        size = (self.image_size, self.image_size)
        arrays = [np.asarray(i if i.size == size else i.resize(size, Image.Resampling.BICUBIC)) for i in images]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).to(self.device)
        return self.normalise(pixels.float() / 255)

    def normalise(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels in 0–1 to what the encoder takes."""
        mean, std = (torch.tensor(each, dtype=pixels.dtype).view(3, 1, 1).to(pixels.device) for each in (self.mean, self.std))
        return (pixels - mean) / std

    @torch.no_grad()
    def embed(self, pixels: Float[Tensor, "B 3 H W"]) -> Embedded:
        """Crops that are encoded again and again, by other deltas each time."""
        tokens = self._own_module().embeddings(pixels.to(self.device, self.dtype), **self._options)  # type: ignore[operator]
        return Embedded(pixels, tokens)

    def encode(self, crops: Float[Tensor, "B 3 H W"] | Embedded, deltas: Deltas | None = None) -> Features:
        """Features of W₀ + ΔW. Gradients reach the deltas; the weights themselves are read only."""
        placed = self.place(deltas or {})
        weights = {target: (self.weight(target) + delta).to(self.dtype) for target, delta in placed.items()}
        return self.encode_with(crops, {f"{target}.weight": weight for target, weight in weights.items()})

    def encode_with(self, crops: Float[Tensor, "B 3 H W"] | Embedded, weights: Mapping[str, Tensor]) -> Features:
        """Features with these parameters, by name, in the place of the backbone's own."""
        pixels, tokens = (crops.pixels, crops.tokens) if isinstance(crops, Embedded) else (crops, None)
        if not len(pixels):  # a photo without a face, asked only about faces
            nothing = torch.zeros(0, 0, self.width, device=self.device)
            return Features(nothing.flatten(0, 1), nothing)
        with self.holding(weights) as module, _reading(module, tokens):
            output = module(pixels.to(self.device, self.dtype), **self._options)
        tokens = output.last_hidden_state
        pooled = tokens[:, 0] if output.pooler_output is None else output.pooler_output
        return Features(pooled.float(), tokens[:, 1:].float())

    @contextmanager
    def holding(self, weights: Mapping[str, Tensor]) -> Iterator[nn.Module]:
        """The module with these parameters, by name, while the block runs; no other thread sees them.

        It is the only way to run a forward with other weights: the module itself belongs to all threads.
        """
        with _swapped(self._own_module(), weights) as module:
            yield module

    def watch(
        self,
        pixels: Float[Tensor, "B 3 H W"],
        deltas: Deltas | None,
        modules: Sequence[str],
        see: Callable[[str, Float[Tensor, "B T D"]], None],
    ) -> Features:
        """Features as `encode` gives them, with `see` called on the name and the input of each of these modules."""

        def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            return lambda module, inputs: see(name, inputs[0])

        own = self._own_module()
        hooks = [own.get_submodule(name).register_forward_pre_hook(hook(name)) for name in modules]
        try:
            return self.encode(pixels, deltas)
        finally:
            for handle in hooks:
                handle.remove()

    def tuned(self, weights: Mapping[str, Tensor]) -> "Backbone":
        """Another backbone, which has these parameters, by name."""
        module = copy.deepcopy(self.module)
        module.load_state_dict(dict(weights), strict=False)
        return replace(self, module=module, fingerprint=fingerprint(module), originals={})

    def _own_module(self) -> nn.Module:
        # A forward swaps tensors inside the module while it runs, so each thread has its own shell around the same weights,
        # and two people can run two merges at once. A shell goes with its thread.
        if not hasattr(self._shells, "module"):
            tensors = [*self.module.parameters(), *self.module.buffers()]
            self._shells.module = copy.deepcopy(self.module, {id(tensor): tensor for tensor in tensors})
        return self._shells.module

    @property
    def _options(self) -> dict[str, bool]:
        # Dinov2 always fits its position table to the input; ViT does so only when asked.
        return {"interpolate_pos_encoding": True} if self.module.config.model_type == "vit" else {}  # type: ignore[union-attr]

    def place(self, deltas: Deltas) -> Deltas:
        """Deltas on this backbone's device, wherever they were made."""
        there = all(delta.device == self.device for delta in deltas.values())
        return deltas if there else {target: delta.to(self.device) for target, delta in deltas.items()}

    def on(self, device: torch.device) -> "Backbone":
        """The same on a device; itself where it is there."""
        return self if self.device == device else self.to(self.dtype, device)

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> "Backbone":
        """A copy of the weights in another precision, on another device where one is named."""
        device = device or self.device
        originals = {target: self.weight(target).detach().to(device) for target in self.target_modules}
        module = copy.deepcopy(self.module).to(device=device, dtype=dtype)
        return replace(self, module=module, originals={} if dtype == torch.float32 else originals)


@contextmanager
def _swapped(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """A module with other tensors in the place of its parameters.

    It is what torch's functional_call does, without the walk over all parameters that costs it as much as a layer's forward.
    """
    places = [
        (module.get_submodule(owner), leaf, tensors[name]) for name in tensors for owner, _, leaf in [name.rpartition(".")]
    ]
    kept = [owner.get_parameter(leaf) for owner, leaf, _ in places]
    try:
        for owner, leaf, tensor in places:
            owner._parameters[leaf] = tensor  # type: ignore[assignment]
        yield module
    finally:
        for (owner, leaf, _), parameter in zip(places, kept, strict=True):
            owner._parameters[leaf] = parameter


@contextmanager
def _reading(module: nn.Module, tokens: Tensor | None) -> Iterator[None]:
    """A module whose first layer reads these tokens, whatever the pixels, where there are some."""
    if tokens is None:
        yield
        return
    embeddings = module.get_submodule("embeddings")
    embeddings.forward = lambda *_, **__: tokens
    try:
        yield
    finally:
        del embeddings.forward


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names and float32 bytes of all weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
