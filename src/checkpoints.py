"""Models on disk: weights as safetensors with what rebuilds the model, training state beside them."""

import io
import json
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from src.files import InputError, replacing, write_bytes
from src.models import MODELS, RestorationModel, create_model

BEST, LAST = "best.safetensors", "last.pt"
HERE = Path(__file__).parent
# Laid out like a run's folder: inside the installed package, or beside it in a checkout.
SHIPPED = HERE / "weights" if (HERE / "weights").is_dir() else HERE.parent / "weights"
FOREIGN = "name a checkpoint of train.py"


def save_model(path: Path, model: RestorationModel, name: str, facts: dict, half: bool = False) -> None:
    """Write a model's weights with its name, its arguments and `facts` (JSON) as metadata.

    `half` rounds them to float16, half the file.
    """
    description = {"model": name, "arguments": model.arguments, **facts}
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    write_bytes(path, save(tensors, metadata={"restoration": json.dumps(description)}), durable=True)


def load_model(path: Path, device: torch.device) -> tuple[RestorationModel, dict]:
    """Rebuild a model in evaluation mode, and its description (`model`, `arguments`, facts).

    The file may come from anyone: it cannot execute code, download anything or choose a model of any size.

    Raises `InputError` for a missing or broken file and for one that another program or version wrote.
    """
    description, state = _read_model(path)
    model = _rebuild(path, description)
    _fill(path, model, state)
    return model.to(device, memory_format=torch.channels_last).eval(), description


def load_weights(model: RestorationModel, path: Path) -> None:
    """Replace a model's weights by those of a checkpoint of its kind; raises as `load_model` does."""
    _fill(path, model, _read_model(path)[1])


def _read_model(path: Path) -> tuple[object, dict[str, Tensor]]:
    """What a checkpoint says of itself, and its tensors."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; train it first with train.py")
    try:
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get("restoration", "{}"))
            keys = file.keys()  # it is no dict
            return description, {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable checkpoint ({reason}); train it again") from None


@torch.no_grad()
def _fill(path: Path, model: RestorationModel, state: dict[str, Tensor]) -> None:
    """Copy a checkpoint's tensors into a model; float16 ones become float32."""
    own = model.state_dict()
    for key in sorted(set(own) ^ set(state)):
        what = "missing" if key in own else "unknown"
        raise InputError(
            f"{path}: weights do not fit {type(model).__name__} ({key!r:.80} is {what}); {FOREIGN}"
        )
    for key, wanted in own.items():
        given = state[key]
        if given.dtype == torch.float16 and wanted.dtype == torch.float32:
            given = given.float()
        found, expected = (f"{tuple(x.shape)} {x.dtype}" for x in (given, wanted))
        if found != expected:
            raise InputError(f"{path}: {key} is {found}, expected {expected}; {FOREIGN}")
        if not given.isfinite().all():
            raise InputError(f"{path}: {key} holds values that are not finite; train it again")
        wanted.copy_(given)


def _rebuild(path: Path, description: object) -> RestorationModel:
    """The model that a checkpoint describes, with random weights."""
    if not isinstance(description, dict) or description.get("model") not in list(MODELS):
        found = description.get("model") if isinstance(description, dict) else description
        known = ", ".join(MODELS)
        raise InputError(f"{path}: holds {found!r:.80}, expected one of {known}; {FOREIGN}")
    name, arguments = description["model"], description.get("arguments")
    if not isinstance(arguments, dict) or not all(
        isinstance(value, int) or (isinstance(value, str) and value.isprintable())
        for value in arguments.values()
    ):
        raise InputError(f"{path}: arguments {arguments!r:.80}, expected a text or number each; {FOREIGN}")
    try:
        # "imagenet" would download
        model = create_model(name, **{**arguments, "encoder_weights": "none"})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if model.arguments != arguments:
        raise InputError(f"{path}: arguments {arguments!r:.80}, expected {model.arguments}; {FOREIGN}")
    return model


def save_state(path: Path, state: dict) -> None:
    """Write a training state: nested dicts and lists of tensors and plain values."""
    # torch.save reports a full disk as a RuntimeError without the file's name, so the bytes go through
    # our own writer, which raises OSError.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with replacing(path, durable=True) as file:
        file.write(buffer.getbuffer())


def load_state(path: Path) -> dict:
    """Read a training state without executing code; raises `InputError` for a broken file.

    Only the uncompressed zip that `save_state` writes is read: it cannot grow beyond its own size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.file_size != entry.compress_size for entry in archive.infolist()):
                raise zipfile.BadZipFile("compressed, as no state of train.py is")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"holds a {type(state).__name__}, expected a dict")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: broken training state ({reason}); delete it to begin anew") from None
    return state


def initial_checkpoint(init: Path, fold: int) -> Path:
    """The checkpoint that a fold's training starts from: `init` itself, or the same fold's in that folder.

    Raises `InputError` where the folder has none of that fold.
    """
    return fold_checkpoints(init, fold)[0] if init.is_dir() else init


def trained_or_shipped(run_dir: Path) -> Path:
    """`run_dir`, or the folder of the shipped weights where nothing was trained in it."""
    return Path(run_dir) if any(Path(run_dir).glob("fold*")) else SHIPPED


def fold_checkpoints(run_dir: Path, fold: int | None) -> list[Path]:
    """The best checkpoint of one fold, or of every trained fold of a run when `fold` is None.

    Raises `InputError` when there is none; it names the folds and runs that exist.
    """
    trained = {path.parent.name: path for path in sorted(Path(run_dir).glob(f"fold*/{BEST}"))}
    folds = {name: path for name, path in trained.items() if name.removeprefix("fold").isdecimal()}
    chosen = list(folds.values()) if fold is None else [p for n, p in folds.items() if n == f"fold{fold}"]
    if not chosen:
        runs = sorted({path.parent.parent.name for path in Path(run_dir).parent.glob(f"*/fold*/{BEST}")})
        wanted = "any fold" if fold is None else f"fold {fold}"
        found = f"trained folds: {', '.join(folds) or 'none'}; runs: {', '.join(runs) or 'none'}"
        remedy = "name another run with --name, or train this one first with train.py"
        raise InputError(f"{run_dir}: no checkpoint of {wanted} ({found}); {remedy}")
    return chosen
