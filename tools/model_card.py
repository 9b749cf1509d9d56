"""Fill the tables of weights/README.md: python -m tools.model_card --sources SOURCES.csv --scores
oof.json

`--sources` is the CSV with the columns source and licence, a row for each photograph that was
trained on; `--scores` is what `evaluate.py --fold all --json` wrote.
"""

import argparse
import json
import re
from pathlib import Path

import pandas as pd

from src.models.checkpoints import SHIPPED, fold_checkpoints, read_description

CARD = SHIPPED / "README.md"


def table(rows: pd.DataFrame) -> str:
    """A Markdown table; numbers right-aligned, scores with four digits."""
    lines = ["| " + " | ".join(rows.columns) + " |"]
    lines.append(
        "|" + "|".join("---:" if rows[c].dtype.kind in "if" else "---" for c in rows) + "|"
    )
    for row in rows.itertuples(index=False):
        lines.append("| " + " | ".join(cell(v) for v in row) + " |")
    return "\n".join(lines)


def cell(value: object) -> str:
    """A value as it stands in a table; nothing where there is none."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.4f}"
    return str(value)


def sources(path: Path) -> str:
    """Number of photographs of each source and licence, the most numerous first."""
    counts = (
        pd.read_csv(path).groupby(["source", "licence"]).size().rename("photographs").reset_index()
    )
    return table(counts.sort_values(["photographs", "source"], ascending=[False, True]))


def validations() -> str:
    """The validation that chose each fold's weights."""
    rows = []
    for path in fold_checkpoints(SHIPPED):
        for network, facts in read_description(path).items():
            scores = {"M": facts["score"]["M"]} if network == "inpainter" else facts["score"]
            rows.append({"fold": path.name, "network": network, "step": facts["step"], **scores})
    return table(pd.DataFrame(rows))


def out_of_fold(path: Path) -> str:
    """Means of each fold and of all images, from the JSON of evaluate.py."""
    scores = json.loads(path.read_text())
    counts = pd.DataFrame(scores["images"])["fold"].value_counts()
    rows = [
        {"fold": name, "images": int(counts[name]), **mean}
        for name, mean in scores["folds"].items()
    ]
    rows.append({"fold": "**all**", "images": int(counts.sum()), **scores["mean"]})
    return table(pd.DataFrame(rows))


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the two marks of a table."""
    marks = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{CARD}: no marks of {name}")
    return pattern.sub(lambda _: f"{marks[0]}\n{content}\n\n{marks[1]}", text)


def main() -> None:
    """Fill the tables that the command line gives the contents of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--scores", type=Path)
    options = parser.parse_args()
    text = fill(CARD.read_text(), "sources", sources(options.sources))
    text = fill(text, "validations", validations())
    if options.scores:
        text = fill(text, "out of fold", out_of_fold(options.scores))
    CARD.write_text(text)


if __name__ == "__main__":
    main()
