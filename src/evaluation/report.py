"""The report page of restored photos: one HTML file that needs nothing beside it."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from src.damage.hole import lost_pixels
from src.evaluation.scoring import Triple
from src.metrics import HUE_BINS, Score, hue_histogram
from src.utils.errors import InputError
from src.utils.files import read_text, write_text
from src.utils.images import read_image

MAX_SIDE = 768  # px; larger photos are reduced for the page
COLUMNS = ["S", "M", "C", "score"]


@dataclass(frozen=True)
class Curve:
    """A fold's `metrics.jsonl`: `validations` (minutes, score) and `losses` by step."""

    name: str
    validations: pd.DataFrame
    losses: pd.DataFrame


def read_curves(run_dir: Path) -> list[Curve]:
    """The curves of every fold of a run, in their order."""
    curves = []
    for path in sorted(Path(run_dir).glob("fold*/*metrics.jsonl")):
        remedy = "remove it, or train the fold again"
        lines = read_text(path, remedy).splitlines()
        try:
            rows = [json.loads(line) for line in lines]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line is no object")
            table = pd.DataFrame(rows)
            table = table.reindex(
                columns=list(dict.fromkeys(["step", "minutes", "val/score", *table]))
            )
            values = table.astype(float)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: no curves of a training ({error}); {remedy}") from None
        validations = (
            values[["minutes", "val/score"]].dropna().rename(columns={"val/score": "score"})
        )
        losses = values.set_index("step").filter(regex="^loss/").dropna(how="all")
        # shipped weights keep the curves of each network: "fold0 inpainter"
        name = f"{path.parent.name} {path.name.removesuffix('metrics.jsonl').strip('_')}"
        curves.append(Curve(name.strip(), validations, losses.rename(columns=lambda key: key[5:])))
    return curves


def write_report(
    path: Path,
    title: str,
    triples: Sequence[Triple],
    table: pd.DataFrame,
    mean: Score,
    curves: Sequence[Curve],
) -> None:
    """Write the page: scores, best, median and worst photo with sliders, hue histograms, training
    curves.

    Args:
        path: the HTML file.
        triples: (restored, truth, damaged input) files.
        table: a row for each of them, with the columns name, fold, S, M, C and score.
        mean: over all photos.
        curves: of the folds that restored them, see `read_curves`.
    """
    order = table["score"].argsort()
    ranks = {"best": len(order) - 1, "median": len(order) // 2, "worst": 0}
    chosen = {}  # one or two photos appear once each
    for label, rank in ranks.items():
        chosen.setdefault(int(order.iloc[rank]), label)
    environment = Environment(
        loader=PackageLoader("src.evaluation"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["score"] = "{:.4f}".format
    page = environment.get_template("report.html").render(
        title=title,
        mean=mean.as_dict(),
        folds=table.groupby("fold")[COLUMNS]
        .mean()
        .assign(count=table.groupby("fold").size())
        .to_dict("index"),
        images=table.to_dict("records"),
        photos=[
            _photo(label, triples[index], table.iloc[index]) for index, label in chosen.items()
        ],
        curves={curve.name: to_hex(f"C{number}") for number, curve in enumerate(curves)},
        plots=_curve_plots(curves) if curves else [],
    )
    write_text(path, page)


def _photo(label: str, triple: Triple, row: pd.Series) -> dict:
    """The data of one photo for the template."""
    restored, true, gray = (
        read_image(path, mode) for path, mode in zip(triple, ("RGB", "RGB", "L"), strict=True)
    )
    mask = lost_pixels(gray, true)
    height, width = gray.shape
    return {
        "label": label,
        "name": row["name"],
        "score": {key: row[key] for key in COLUMNS},
        "width": width,
        "height": height,
        "damaged": picture_uri(gray),
        "restored": picture_uri(restored),
        "truth": picture_uri(true),
        "hole": outline(mask),
        "histogram": _histogram_plot(true, restored),
    }


def picture_uri(array: np.ndarray) -> str:
    """(H, W) or (H, W, 3) uint8 as a data URI of at most `MAX_SIDE` pixels along a side."""
    image, buffer = Image.fromarray(array), BytesIO()
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    image.save(buffer, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def outline(mask: np.ndarray) -> str:
    """The border of an (H, W) bool mask as the path of an SVG whose unit is a pixel."""
    borders, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = (" ".join(f"{x},{y}" for x, y in (border[:, 0] + 0.5).tolist()) for border in borders)
    return " ".join(f"M{line}Z" for line in lines)


def _histogram_plot(true: np.ndarray, restored: np.ndarray) -> str:
    figure = Figure(figsize=(4.5, 1.9), layout="constrained")
    axes = figure.subplots()
    degrees = np.arange(HUE_BINS) * 360 // HUE_BINS
    colors = mpl.colormaps["hsv"](np.arange(HUE_BINS) / HUE_BINS)
    axes.bar(degrees, hue_histogram(restored)[:, 0], width=2, color=colors)
    axes.step(degrees, hue_histogram(true)[:, 0], where="mid", color="black", linewidth=1)
    axes.set(xlabel="hue, degrees", yticks=[], xlim=(-1, 359), xticks=range(0, 360, 60))
    axes.spines[["top", "right", "left"]].set_visible(False)
    return _svg_uri(figure)


def _curve_plots(curves: Sequence[Curve]) -> list[dict[str, str]]:
    """The validation scores of all folds, then each loss: `title` and `uri` of a plot."""
    terms = list(dict.fromkeys(term for curve in curves for term in curve.losses))
    plots = []
    for term in (None, *terms):
        figure = Figure(figsize=(4.5, 2.6), layout="constrained")
        axes = figure.subplots()
        for number, curve in enumerate(curves):
            if term is None:
                axes.plot(
                    *curve.validations[["minutes", "score"]].T.values,
                    color=f"C{number}",
                    marker=".",
                )
            elif term in curve.losses:
                axes.plot(curve.losses[term], color=f"C{number}", linewidth=0.8)
        axes.set(
            xlabel="step" if term else "minutes of training", ylabel=term or "validation score"
        )
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        plots.append({"title": term or "validation score", "uri": _svg_uri(figure)})
    return plots


def _svg_uri(figure: Figure) -> str:
    """As a data URI, not inline: the ids of several figures in one page would clash."""
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif"}
    ):
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(text.getvalue().encode()).decode()}"
