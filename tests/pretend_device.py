"""A pretended second device, so that code for a GPU can be tried where there is none: values are computed on the CPU, but a
tensor on it mixes with no tensor on the CPU, and has to be brought back before numpy reads it.

It goes by the name `meta`, the one device that every build of torch lets tensors be sent to.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

PRETENDED = torch.device("meta")
CPU = torch.device("cpu")


class Elsewhere(torch.Tensor):
    """A tensor that says it is on the pretended device; `held` has its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        options: dict[str, Any] = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        self = torch.Tensor._make_wrapper_subclass(cls, held.shape, **options, device=PRETENDED)
        self.held = held
        return self

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.held!r})"

    def tolist(self) -> Any:
        raise TypeError("tolist of a tensor that is not on the CPU")

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        copied = memo.setdefault(id(self), Elsewhere(self.held.clone()).requires_grad_(self.requires_grad))
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Pretending(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    elsewhere = [one for one in tensors if isinstance(one, Elsewhere)]
    asked = kwargs.get("device")
    if func is torch.ops.aten._local_scalar_dense.default:
        return func(args[0].held if elsewhere else args[0])
    target = bool(elsewhere) if asked is None else torch.device(asked) == PRETENDED
    if func not in _CROSSING and elsewhere:
        strangers = [one for one in tensors if not isinstance(one, Elsewhere) and one.dim()]
        if strangers:
            raise RuntimeError(f"{func}: tensors on two devices, shapes {[tuple(one.shape) for one in tensors]}")
    bare = tree_map(lambda one: one.held if isinstance(one, Elsewhere) else one, (args, kwargs))
    if asked is not None:
        bare[1]["device"] = CPU
    found = func(*bare[0], **bare[1])
    if func is torch.ops.aten.copy_.default or (func._schema.name.endswith("_") and isinstance(args[0], torch.Tensor)):
        return args[0]
    return tree_map(lambda one: Elsewhere(one) if target and isinstance(one, torch.Tensor) else one, found)


# What may read one device and write another; an index on the CPU is taken by torch itself.
_CROSSING = {
    torch.ops.aten._to_copy.default,
    torch.ops.aten.copy_.default,
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put_.default,
}


@contextmanager
def pretending() -> Iterator[torch.device]:
    """While it lasts, tensors may be sent to the device that it gives."""
    kept = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # else a module keeps its tensors, and swaps their storage
    try:
        with _Pretending():
            yield PRETENDED
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(kept)
