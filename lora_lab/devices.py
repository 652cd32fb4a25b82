"""Where the arithmetic is done: the CPU, an NVIDIA GPU, or the GPU of an Apple chip.

Backbones, heads, images and features are on the device; factors, statistics and all that is written are on the CPU. So what a
merge without images makes is the same to the last bit wherever it is used.
"""

import torch

from lora_lab.errors import LoraLabError

AUTO = "auto"
KINDS = ("cpu", "cuda", "mps")


def find_device(name: str | torch.device = AUTO) -> torch.device:
    """A device by its name: cpu, cuda, cuda:1, mps, or auto for a GPU where there is one and else the CPU.

    On a GPU float32 is float32 from now on, in this whole process, and not its shorter form TF32. Raises `LoraLabError` for a
    name that is none, and for a device that is not here.
    """
    text = str(name).strip().lower()
    if text == AUTO:
        text = next((kind for kind in ("cuda", "mps") if _count(kind)), "cpu")
    kind, _, place = text.partition(":")
    if kind not in KINDS or (":" in text and not place.isdigit()):
        raise LoraLabError(f"no device {str(name)!r}: take {AUTO}, {', '.join(KINDS)}, or one GPU of several such as cuda:1")
    there = _count(kind)
    if not there:
        raise LoraLabError(f"no {kind} device is here, or this torch ({torch.__version__}) cannot use it: take cpu or {AUTO}")
    if place and int(place) >= there:
        raise LoraLabError(f"no device {text}: there are {there} of the kind {kind}, the first of which is {kind}:0")
    if kind == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    return torch.device(text)


def fast_precision(device: torch.device | None = None) -> torch.dtype:
    """bfloat16 where a device multiplies it by itself, so that a forward takes half the time; else float32."""
    kind = device.type if device else "cpu"
    if kind == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    elif kind == "mps":
        able = False
    else:
        found = torch.cpu.get_capabilities()
        able = bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return torch.bfloat16 if able else torch.float32


def _count(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.device_count()
    return int(torch.backends.mps.is_available()) if kind == "mps" else 1
