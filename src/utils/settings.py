"""Moved to src.utils.cli; kept until all callers have moved."""

import dataclasses
from typing import Annotated, TypeVar, get_type_hints

from src.utils.cli import Compute, DamageKind, Folders, RunFolder, Style, Tta, as_json

__all__ = ["Compute", "DamageKind", "Folders", "RunFolder", "Style", "Tta", "as_json"]

T = TypeVar("T")
MayChange = Annotated[T, "may change"]


def may_change(settings: object) -> set[str]:
    """Names of settings whose type is `MayChange`, and those of the shared groups."""
    hints = get_type_hints(type(settings), include_extras=True)
    names = {"output_dir", "data_dir", "device", "devices"}
    for field in dataclasses.fields(settings):
        if getattr(hints[field.name], "__metadata__", ()) == ("may change",):
            names.add(field.name)
    return names
