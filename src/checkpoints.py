"""Models on disk: weights as safetensors with what rebuilds the model, training state beside them."""

import io
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from src.files import InputError, replacing, write_bytes
from src.models import MODELS, RestorationModel, create_model

BEST, LAST = "best.safetensors", "last.pt"


def save_model(path: Path, model: RestorationModel, name: str, facts: dict) -> None:
    """Write a model's weights with its name, its arguments and `facts` (JSON) as metadata."""
    description = {"model": name, "arguments": model.arguments, **facts}
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    write_bytes(path, save(tensors, metadata={"restoration": json.dumps(description)}))


def load_model(path: Path, device: torch.device) -> tuple[RestorationModel, dict]:
    """Rebuild a model in evaluation mode, and its description (`model`, `arguments`, facts).

    Raises `InputError` for a missing or broken file and for one that another program or version wrote.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; train it first with train.py")
    try:
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get("restoration", "{}"))
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({error}); train it again") from None
    if description.get("model") not in MODELS:
        found, known = description.get("model", "no model name"), ", ".join(MODELS)
        raise InputError(f"{path}: holds {found}, expected one of {known}; name a checkpoint of train.py")
    model = create_model(description["model"], **description["arguments"])
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: weights do not fit {description['model']} ({reason})") from None
    return model.to(device, memory_format=torch.channels_last).eval(), description


def save_state(path: Path, state: dict) -> None:
    """Write a training state: nested dicts and lists of tensors and plain values."""
    # torch.save reports a full disk as a RuntimeError without the file's name, so the bytes go through
    # our own writer, which raises OSError.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())


def load_state(path: Path) -> dict:
    """Read a training state without executing code; raises `InputError` for a broken file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: broken training state ({reason}); delete it to begin anew") from None


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
