"""Models on disk: each network's weights as safetensors with what rebuilds it, training state
beside them.

A checkpoint is a folder with one file for each network of a model, or the one file of a model that
is a single network.
"""

import io
import json
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from src.models.base import TrainableModel
from src.models.options import OPTIONS, from_checkpoint
from src.models.registry import MODELS
from src.utils.errors import InputError
from src.utils.files import atomic_write, write_bytes

LAST, SUFFIX = "last.pt", ".safetensors"
NETWORKS = sorted({network for options in OPTIONS.values() for network in options.networks})
FOREIGN = "name a checkpoint of this program"


def save_model(folder: Path, model: TrainableModel, name: str, facts: dict) -> list[Path]:
    """Write a file for each network that is trained, with its architecture and `facts` (JSON) as
    metadata."""
    paths = []
    for network in model.options.trained:
        arguments = model.options.architecture() if network == model.options.shaped else {}
        description = {"model": name, "network": network, "arguments": arguments, **facts}
        paths.append(network_file(folder, network))
        write_network(paths[-1], part_of(model, network).state_dict(), description)
    return paths


def write_network(
    path: Path, tensors: dict[str, Tensor], description: dict, half: bool = False
) -> None:
    """Write a network's weights and what is said of it; `half` rounds them to float16, half the
    file."""
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    write_bytes(
        path, save(tensors, metadata={"restoration": json.dumps(description)}), durable=True
    )


def load_model(path: Path, device: torch.device) -> tuple[TrainableModel, dict]:
    """Rebuild a model in evaluation mode, and its description.

    The files may come from anyone: they cannot execute code, download anything, or choose a model
    that is larger than they are.

    Args:
        path: a checkpoint, see above.

    Returns: the description holds `model`, `arguments`, and under `networks` the facts of each
    network.

    Raises `InputError` for a missing or broken file and for one that another program or version
    wrote.
    """
    files = network_files(path)
    read = {file: read_network(file) for file in files}
    descriptions = {file: _described(file, description) for file, (description, _) in read.items()}
    first, name = files[0], descriptions[files[0]]["model"]
    networks = {descriptions[file]["network"]: file for file in files}
    for file, description in descriptions.items():
        if description["model"] != name:
            raise InputError(
                f"{file}: of a {description['model']}, but {first.name} of a {name}; {FOREIGN}"
            )
    for network in OPTIONS[name].networks:
        if network not in networks:
            raise InputError(
                f"{path}: lacks {network}{SUFFIX}; train it as well, or copy it there", "checkpoint"
            )
    shaping = networks[OPTIONS[name].shaped]
    try:
        options = from_checkpoint(name, descriptions[shaping].get("arguments"))
        with torch.device("meta"):  # costs no memory, whatever encoder the file names
            shapes = MODELS[name](options)
    except InputError as error:
        raise InputError(f"{shaping}: {error}") from None
    for network, file in networks.items():
        _require_fit(file, name, part_of(shapes, network).state_dict(), read[file][1])
    model = MODELS[name](options)
    for network, file in networks.items():
        part_of(model, network).load_state_dict(read[file][1])
    facts = {network: descriptions[file] for network, file in networks.items()}
    description = {"model": name, "arguments": options.architecture(), "networks": facts}
    return model.to(device, memory_format=torch.channels_last).eval(), description


def part_of(model: TrainableModel, network: str) -> torch.nn.Module:
    """A network of a model, by its name in the model's options; raises `InputError` for another
    name."""
    if network not in model.options.networks:
        raise InputError(
            f"network {network!r:.80}, expected one of {', '.join(model.options.networks)}"
        )
    return getattr(model, network) if len(model.options.networks) > 1 else model


def network_file(folder: Path, network: str) -> Path:
    """Where a network lies in the folder of a fold."""
    return folder / f"{network}{SUFFIX}"


def network_files(path: Path) -> list[Path]:
    """The files of a checkpoint; raises `InputError` where there is none."""
    files = [network_file(path, network) for network in NETWORKS] if path.is_dir() else [path]
    files = [file for file in files if file.is_file()]
    if not files:
        raise InputError(f"{path}: no such checkpoint", "checkpoint")
    return files


def load_weights(model: TrainableModel, path: Path) -> dict[str, Path]:
    """Replace the weights of a model's networks by those of a checkpoint of its kind, which may
    lack some.

    Returns: the file of each network that was found. Raises as `load_model` does.
    """
    loaded = {}
    for file in network_files(path):
        description, weights = read_network(file)
        try:
            name = _described(file, description)["network"]
            network = part_of(model, name)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        _require_fit(file, type(model).__name__, network.state_dict(), weights)
        network.load_state_dict(weights)
        loaded[name] = file
    return loaded


def read_description(path: Path) -> dict[str, dict]:
    """What a checkpoint says of each of its networks, without the weights; raises as `load_model`
    does."""
    files = network_files(path)
    found = (_described(file, read_network(file, with_weights=False)[0]) for file in files)
    return {description["network"]: description for description in found}


def _described(path: Path, description: object) -> dict:
    """A file's description with the network it holds; raises `InputError` for a model that does not
    exist."""
    name = description.get("model") if isinstance(description, dict) else None
    if name not in list(OPTIONS):
        found = f"holds {name or description!r:.80}, expected one of {', '.join(OPTIONS)}"
        raise InputError(f"{path}: {found}; {FOREIGN}")
    networks = OPTIONS[name].networks
    network = description.get("network", networks[0] if len(networks) == 1 else None)
    if network not in list(networks):
        found = f"network {network!r:.80} of a {name}, expected one of {', '.join(networks)}"
        raise InputError(f"{path}: {found}; {FOREIGN}")
    return description | {"network": network}


def read_network(path: Path, with_weights: bool = True) -> tuple[object, dict[str, Tensor]]:
    """What a file says of itself, and its tensors, float16 ones as float32; raises as `load_model`
    does."""
    try:
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get("restoration", "{}"))
            keys = file.keys() if with_weights else ()  # it is no dict
            weights = {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable checkpoint ({reason}); train it again") from None
    return description, {
        k: v.float() if v.dtype == torch.float16 else v for k, v in weights.items()
    }


def _require_fit(
    path: Path, name: str, wanted: dict[str, Tensor], given: dict[str, Tensor]
) -> None:
    """Raise `InputError` unless the tensors of a file are those of a model, and finite."""
    for key in sorted(wanted.keys() ^ given.keys()):
        what = "missing" if key in wanted else "unknown"
        raise InputError(
            f"{path}: the weights do not fit {name} ({key!r:.80} is {what}); {FOREIGN}"
        )
    for key, tensor in given.items():
        found, expected = (f"{tuple(x.shape)} {x.dtype}" for x in (tensor, wanted[key]))
        if found != expected:
            raise InputError(f"{path}: {key} is {found}, expected {expected}; {FOREIGN}")
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {key} holds values that are not finite; train it again")


def save_state(path: Path, state: dict) -> None:
    """Write a training state: nested dicts and lists of tensors and plain values."""
    # torch.save reports a full disk as a RuntimeError without the file's name, so the bytes go
    # through our own writer, which raises OSError.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_write(path, durable=True) as file:
        file.write(buffer.getbuffer())


def load_state(path: Path) -> dict:
    """Read a training state without executing code; raises `InputError` for a broken file.

    Only the uncompressed zip that `save_state` writes is read: it cannot grow beyond its own size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.file_size != entry.compress_size for entry in archive.infolist()):
                raise zipfile.BadZipFile("compressed, as no training state is")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"holds a {type(state).__name__}, expected a dict")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: broken training state ({reason}); delete it to start again"
        ) from None
    return state
