"""Models on disk: safetensors files that suffice to rebuild a model, and training states.

A checkpoint is a folder with one file per network of a model, or one such file.
"""

import io
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from src.models import create_model
from src.models.base import TrainableModel
from src.models.options import MODELS
from src.utils.errors import InputError
from src.utils.files import write_bytes

NETWORKS = sorted({network for options in MODELS.values() for network in options.networks})


def network_files(path: Path) -> list[Path]:
    """The files of a checkpoint."""
    files = [path / f"{name}.safetensors" for name in NETWORKS] if path.is_dir() else [path]
    files = [file for file in files if file.is_file()]
    if not files:
        raise InputError(f"{path}: no such checkpoint", "checkpoint")
    return files


def network_of(model: TrainableModel, name: str) -> nn.Module:
    """A network of a model by its name in `options.networks`."""
    return getattr(model, name) if len(model.options.networks) > 1 else model


def save_model(folder: Path, model: TrainableModel, name: str, facts: dict) -> None:
    """Write a file per network of the model called `name`, with `facts` (JSON) as metadata."""
    for network in model.options.networks:
        arguments = model.options.arguments() if network == model.options.shaped else {}
        description = {"model": name, "network": network, "arguments": arguments, **facts}
        weights = network_of(model, network).state_dict()
        write_network(folder / f"{network}.safetensors", weights, description)


def write_network(
    path: Path, tensors: dict[str, Tensor], description: dict, half: bool = False
) -> None:
    """Write a network's weights and description; `half` rounds to float16."""
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    metadata = {"restoration": json.dumps(description)}
    write_bytes(path, save(tensors, metadata=metadata), durable=True)


def read_network(path: Path, with_weights: bool = True) -> tuple[dict, dict[str, Tensor]]:
    """A file's description, with `model` and `network` in it, and its weights, all as float32."""
    try:
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get("restoration", "{}"))
            names = file.keys() if with_weights else ()
            weights = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable checkpoint ({reason}); train it again") from None
    name, network = description.get("model"), description.get("network")
    if name not in MODELS or network not in MODELS[name].networks:
        found = f"model {name}, network {network}"
        raise InputError(f"{path}: {found}, expected one of {', '.join(MODELS)}")
    halves = {key: value.float() for key, value in weights.items() if value.dtype == torch.float16}
    return description, weights | halves


def read_description(path: Path) -> dict[str, dict]:
    """The description of each network of a checkpoint, without the weights."""
    found = (read_network(file, with_weights=False)[0] for file in network_files(path))
    return {description["network"]: description for description in found}


def load_weights(model: TrainableModel, path: Path) -> dict[str, dict]:
    """Load the networks that a checkpoint holds; returns the description of each."""
    loaded = {}
    for file in network_files(path):
        description, weights = read_network(file)
        if MODELS[description["model"]] is not type(model.options):
            expected = f"expected that of a {type(model).__name__}"
            raise InputError(f"{file}: a checkpoint of a {description['model']}, {expected}")
        try:
            network_of(model, description["network"]).load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{file}: the weights do not fit the model ({reason})") from None
        loaded[description["network"]] = description
    return loaded


def load_model(path: Path, device: torch.device) -> tuple[TrainableModel, dict]:
    """The model of a checkpoint in evaluation mode, and its description: `model`, `arguments`, and
    under `networks` that of each network."""
    networks = read_description(path)
    names = sorted({description["model"] for description in networks.values()})
    if len(names) > 1:
        raise InputError(f"{path}: holds networks of different models ({', '.join(names)})")
    kind = MODELS[names[0]]
    for network in kind.networks:
        if network not in networks:
            raise InputError(f"{path}: lacks {network}.safetensors", "checkpoint")
    arguments = networks[kind.shaped]["arguments"]
    # the checkpoint has the encoder's weights
    random = {"encoder_weights": "random"} if "encoder" in kind.architecture else {}
    try:
        model = create_model(names[0], **arguments, **random)
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error}") from None
    load_weights(model, path)
    description = {"model": names[0], "arguments": arguments, "networks": networks}
    return model.to(device, memory_format=torch.channels_last).eval(), description


def save_state(path: Path, state: dict) -> None:
    """Write a training state: nested dicts and lists of tensors and plain values."""
    # torch.save reports a full disk as a RuntimeError that does not name the file
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getbuffer(), durable=True)


def load_state(path: Path) -> dict:
    """Read a training state without executing code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the type depends on what is broken
        reason = " ".join(str(error).split())[:200]
        remedy = "delete it to start again"
        raise InputError(f"{path}: broken training state ({reason}); {remedy}") from None
