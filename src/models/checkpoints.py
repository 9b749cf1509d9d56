"""Models on disk: weights as safetensors with what rebuilds the model, training state beside them."""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from src.models.base import TrainableModel
from src.models.options import OPTIONS, from_checkpoint
from src.models.registry import MODELS
from src.runtime.errors import InputError
from src.runtime.files import atomic_write, write_bytes

BEST, LAST = "best.safetensors", "last.pt"
PACKAGE = Path(__file__).parents[1]
# Laid out like a run's folder: inside the installed package, or beside it in a checkout.
SHIPPED = PACKAGE / "weights" if (PACKAGE / "weights").is_dir() else PACKAGE.parent / "weights"
DETECTOR = SHIPPED / "detector.safetensors"
FOREIGN = "name a checkpoint of this program"


def save_model(path: Path, model: TrainableModel, name: str, facts: dict, half: bool = False) -> None:
    """Write a model's weights with its name, its architecture and `facts` (JSON) as metadata.

    `half` rounds them to float16, half the file.
    """
    description = {"model": name, "arguments": model.options.architecture(), **facts}
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    write_bytes(path, save(tensors, metadata={"restoration": json.dumps(description)}), durable=True)


def load_model(path: Path, device: torch.device) -> tuple[TrainableModel, dict]:
    """Rebuild a model in evaluation mode, and its description (`model`, `arguments`, facts).

    The file may come from anyone: it cannot execute code, download anything, or choose a model that is
    larger than the file.

    Raises `InputError` for a missing or broken file and for one that another program or version wrote.
    """
    description, weights = _read(path)
    if not isinstance(description, dict) or description.get("model") not in list(OPTIONS):
        found = description.get("model") if isinstance(description, dict) else description
        raise InputError(f"{path}: holds {found!r:.80}, expected one of {', '.join(OPTIONS)}; {FOREIGN}")
    name = description["model"]
    try:
        options = from_checkpoint(name, description.get("arguments"))
        with torch.device("meta"):  # costs no memory, whatever encoder the file names
            shapes = MODELS[name](options).state_dict()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    _require_fit(path, name, shapes, weights)
    model = MODELS[name](options)
    model.load_state_dict(weights)
    return model.to(device, memory_format=torch.channels_last).eval(), description


def load_weights(model: TrainableModel, path: Path) -> None:
    """Replace a model's weights by those of a checkpoint of its kind; raises as `load_model` does."""
    _, weights = _read(path)
    _require_fit(path, type(model).__name__, model.state_dict(), weights)
    model.load_state_dict(weights)


def read_description(path: Path) -> dict:
    """What a checkpoint says of itself, without reading its weights; raises as `load_model` does."""
    description, _ = _read(path, with_weights=False)
    return description if isinstance(description, dict) else {}


def _read(path: Path, with_weights: bool = True) -> tuple[object, dict[str, Tensor]]:
    """What a checkpoint says of itself, and its tensors, float16 ones as float32."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint", "checkpoint")
    try:
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get("restoration", "{}"))
            keys = file.keys() if with_weights else ()  # it is no dict
            weights = {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable checkpoint ({reason}); train it again") from None
    return description, {k: v.float() if v.dtype == torch.float16 else v for k, v in weights.items()}


def _require_fit(path: Path, name: str, wanted: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Raise `InputError` unless the tensors of a file are those of a model, and finite."""
    for key in sorted(wanted.keys() ^ given.keys()):
        what = "missing" if key in wanted else "unknown"
        raise InputError(f"{path}: the weights do not fit {name} ({key!r:.80} is {what}); {FOREIGN}")
    for key, tensor in given.items():
        found, expected = (f"{tuple(x.shape)} {x.dtype}" for x in (tensor, wanted[key]))
        if found != expected:
            raise InputError(f"{path}: {key} is {found}, expected {expected}; {FOREIGN}")
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {key} holds values that are not finite; train it again")


def save_state(path: Path, state: dict) -> None:
    """Write a training state: nested dicts and lists of tensors and plain values."""
    # torch.save reports a full disk as a RuntimeError without the file's name, so the bytes go through
    # our own writer, which raises OSError.
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
        raise InputError(f"{path}: broken training state ({reason}); delete it to start again") from None
    return state


def initial_checkpoint(init: Path, fold: int) -> Path:
    """The checkpoint that a fold's training starts from: `init` itself, or the same fold's in that folder.

    Raises `InputError` where the folder has none of that fold.
    """
    return fold_checkpoints(init, [fold])[0] if init.is_dir() else init


def trained_or_shipped(run_dir: Path) -> Path:
    """`run_dir`, or the folder of the shipped weights where no training was begun in it."""
    # a training that fails before it begins, such as for want of data, leaves only its hidden lock
    return Path(run_dir) if any(Path(run_dir).glob("fold*/[!.]*")) else SHIPPED


def fold_checkpoints(run_dir: Path, folds: Sequence[int] | None = None) -> list[Path]:
    """The best checkpoints of some folds, or of every trained fold of a run when `folds` is None.

    Raises `InputError` when one is missing; it names the folds and runs that exist.
    """
    trained = {}
    for path in Path(run_dir).glob(f"fold*/{BEST}"):
        number = path.parent.name.removeprefix("fold")
        if number.isdecimal():
            trained[int(number)] = path
    wanted = sorted(trained) if folds is None else folds
    missing = [f"fold {fold}" for fold in wanted if fold not in trained]
    if missing or not wanted:
        runs = sorted({path.parent.parent.name for path in Path(run_dir).parent.glob(f"*/fold*/{BEST}")})
        known, others = (", ".join(map(str, names)) or "none" for names in (sorted(trained), runs))
        found = f"no checkpoint of {(missing or ['any fold'])[0]} (trained folds: {known}; runs: {others})"
        raise InputError(f"{run_dir}: {found}", "checkpoint")
    return [trained[fold] for fold in wanted]
