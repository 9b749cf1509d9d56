"""The report page: one self-contained HTML file."""

import base64
import json
from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import NamedTuple

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

MAX_SIDE = 768  # px of the page's photos
COLUMNS = ["S", "M", "C", "score"]


class Curve(NamedTuple):
    """A fold's `metrics.jsonl`: `validations` (minutes, score) and `losses` by step."""

    name: str
    validations: pd.DataFrame
    losses: pd.DataFrame


def read_curves(run_dir: Path) -> list[Curve]:
    """The curves of every fold of a run; shipped weights have one per network."""
    curves = []
    for path in sorted(Path(run_dir).glob("fold*/*metrics.jsonl")):
        remedy = "remove it, or train the fold again"
        empty = dict.fromkeys(("step", "minutes", "val/score"))
        try:
            rows = [empty | json.loads(line) for line in read_text(path, remedy).splitlines()]
            table = pd.DataFrame(rows, dtype=float)
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: no curves of a training ({error}); {remedy}") from None
        table.columns = table.columns.str.removeprefix("val/")
        losses = table.set_index("step").filter(regex="^loss/").dropna(how="all")
        losses.columns = losses.columns.str.removeprefix("loss/")
        name = f"{path.parent.name} {path.name.removesuffix('metrics.jsonl').strip('_')}"
        curves.append(Curve(name.strip(), table[["minutes", "score"]].dropna(), losses))
    return curves


def write_report(
    path: Path,
    title: str,
    triples: Sequence[Triple],
    table: pd.DataFrame,
    mean: Score,
    curves: Sequence[Curve],
) -> None:
    """Write the page of photos, hue histograms, curves and `table`: name, fold, S, M, C, score."""
    order = table["score"].argsort()
    ranks = {"best": len(order) - 1, "median": len(order) // 2, "worst": 0}
    chosen = {}  # by index, so that with one or two photos none appears twice
    for label, rank in ranks.items():
        chosen.setdefault(int(order.iloc[rank]), label)
    loader = PackageLoader("src.evaluation")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["score"] = "{:.4f}".format
    folds = table.groupby("fold")
    page = environment.get_template("report.html").render(
        title=title,
        mean=mean.as_dict(),
        folds=folds[COLUMNS].mean().assign(count=folds.size()).to_dict("index"),
        images=table.to_dict("records"),
        photos=[_photo(label, triples[i], table.iloc[i]) for i, label in chosen.items()],
        curves={curve.name: to_hex(f"C{number}") for number, curve in enumerate(curves)},
        plots=_curve_plots(curves) if curves else [],
    )
    write_text(path, page)


def _photo(label: str, triple: Triple, row: pd.Series) -> dict:
    """The data of one photo for the template."""
    restored, true, gray = map(read_image, triple, ("RGB", "RGB", "L"))
    return {
        "label": label,
        "name": row["name"],
        "score": {key: row[key] for key in COLUMNS},
        "width": gray.shape[1],
        "height": gray.shape[0],
        "damaged": picture_uri(gray),
        "restored": picture_uri(restored),
        "truth": picture_uri(true),
        "hole": outline(lost_pixels(gray, true)),
        "histogram": _histogram_plot(true, restored),
    }


def picture_uri(array: np.ndarray) -> str:
    """(H, W) or (H, W, 3) uint8 as a data URI, reduced to at most `MAX_SIDE` px along a side."""
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
    for title in ("validation score", *terms):
        figure = Figure(figsize=(4.5, 2.6), layout="constrained")
        axes = figure.subplots()
        for number, curve in enumerate(curves):
            if title in curve.losses:
                axes.plot(curve.losses[title], color=f"C{number}", linewidth=0.8)
            elif title not in terms:
                axes.plot("minutes", "score", ".-", data=curve.validations, color=f"C{number}")
        axes.set(xlabel="step" if title in terms else "minutes of training", ylabel=title)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        plots.append({"title": title, "uri": _svg_uri(figure)})
    return plots


def _svg_uri(figure: Figure) -> str:
    """The figure as a data URI: inline, the ids of several figures in one page would clash."""
    text = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(text.getvalue().encode()).decode()}"
