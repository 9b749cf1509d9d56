"""Restore a photo in the browser: python app.py"""

import os
import shutil
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.checkpoints import fold_checkpoints, load_model, trained_or_shipped
from src.command_line import parse_settings, run_script
from src.decode import VISUAL_TEMPERATURE, expected_color, render, sampled_color
from src.distributed import launch
from src.files import IMAGE_FORMATS, InputError, write_png
from src.inference import as_tensors, read_gray
from src.models import RestorationModel
from src.old_photos import DETECTOR, find_damage, load_detector
from src.settings import RunSettings

MAX_PIXELS = 12_000_000  # of an upload
MAX_BYTES = "50mb"  # of an upload
KEPT_SECONDS = 3600  # after which uploads and results are deleted; at the end all are
SHOWN = 1024  # longest side in pixels of what is shown and painted on
COLOURINGS = 6  # the likeliest one, and samples
NEAR = np.ones((5, 5), np.uint8)  # how far the editor moves borders, in pixels of what is shown
MARK = np.array([255, 60, 30, 160], np.uint8)  # RGBA of lost pixels in the editor
INTRODUCTION = """# Restore a photo
Drop a photo (JPEG, PNG, WebP or TIFF, at most 12 megapixels). What is marked in red counts as lost and
is painted in: correct it with the brush and the eraser. The photo stays where this page is served."""


@dataclass(frozen=True)
class Settings(RunSettings):
    """Serve the page; it needs `pip install -r requirements-app.txt` besides."""

    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1 or mps."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 7860
    """Port to listen on."""


@dataclass
class Photo:
    """The photo at hand, kept by the server until its page is closed or `KEPT_SECONDS` have passed."""

    name: str
    gray: np.ndarray  # (H, W) uint8
    found: np.ndarray  # (H, W) bool, the damage that was found
    luma: np.ndarray | None = None  # (H, W) uint8, with the damage painted in
    colors: list[Tensor] = field(default_factory=list)  # (2, h, w) of each colouring
    result: Path | None = None  # the PNG to download


def shown(array: np.ndarray) -> np.ndarray:
    """An image of at most `SHOWN` pixels along a side."""
    image = Image.fromarray(array)
    image.thumbnail((SHOWN, SHOWN), Image.Resampling.BILINEAR)
    return np.asarray(image)


def marked(mask: np.ndarray) -> np.ndarray:
    """The layer of the editor that shows a mask: (h, w, 4) uint8, of the size of `shown`."""
    return (shown(mask.astype(np.uint8) * 255) > 0)[..., None] * MARK


def corrected(photo: Photo, layers: list[np.ndarray]) -> np.ndarray:
    """The mask (H, W) after the user's painting; exactly what was found where nothing was painted."""
    before = marked(photo.found)[..., 3] > 0
    after = np.zeros_like(before)
    for layer in layers:
        after |= cv2.resize(layer[..., 3], before.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    added, removed = (
        cv2.resize(change.view(np.uint8), photo.gray.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        for change in (_gained(before, after), _gained(after, before))
    )
    return (photo.found | added) & ~removed


def _gained(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What of `after` is new, (h, w) bool; the editor scales its layers, and borders it moved are not."""
    core = after & (cv2.dilate(before.view(np.uint8), NEAR) == 0)
    return (cv2.dilate(core.view(np.uint8), NEAR) > 0) & after & ~before


@torch.inference_mode()
def restore(models: list[RestorationModel], photo: Photo, mask: np.ndarray) -> None:
    """Paint in what is lost and draw the colourings."""
    damaged, lost = as_tensors(models, photo.gray, mask)
    mean = models[0].predict(models, damaged, lost, tta=1)
    luma = (mean["luma"][0, 0] * 255).round().to(torch.uint8).cpu().numpy()
    photo.luma = np.where(mask, luma, photo.gray)
    p, mass = mean["p"][0].cpu(), mean["mass"][0].cpu()
    samples = (sampled_color(p, mass, np.random.default_rng(seed)) for seed in range(1, COLOURINGS))
    photo.colors = [expected_color(p, mass, VISUAL_TEMPERATURE), *samples]


def page(models: list[RestorationModel]):
    """The page as `gradio.Blocks`."""
    import gradio as gr

    cleared = (0, 1.0, None, None, None)  # choice, saturation, and no result

    def checked(function):
        """`function`, whose `InputError` becomes a message on the page."""

        def call(*arguments):
            try:
                return function(*arguments)
            except InputError as error:
                reason = str(error).removeprefix(f"{arguments[0]}: ")  # the path is one of this server
                raise gr.Error(reason, print_exception=False) from None

        return call

    def opened(path):
        if path is None:
            return None, None, None, *cleared
        gray = read_gray(Path(path), MAX_PIXELS)
        photo = Photo(Path(path).stem, gray, find_damage(DETECTOR, Path(path), gray))
        value = {"background": shown(gray), "layers": [marked(photo.found)], "composite": None}
        share = f"{photo.found.mean():.1%} of the photo is marked as lost."
        return photo, value, share, *cleared

    def restored(photo, editor):
        if photo is None:
            raise InputError("drop a photo first")
        restore(models, photo, corrected(photo, editor["layers"]))
        small = shown(photo.luma)
        thumbnails = [(render(small, color), f"colouring {n + 1}") for n, color in enumerate(photo.colors)]
        return 0, 1.0, gr.Gallery(thumbnails, selected_index=0), *colored(photo, 0, 1.0)

    def colored(photo, chosen, saturation):
        if photo is None or photo.luma is None:
            return None, None
        rgb = render(photo.luma, photo.colors[chosen] * saturation)
        if photo.result:  # one is kept, however often the slider moves
            shutil.rmtree(photo.result.parent, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
        photo.result = folder / f"{photo.name}_restored.png"
        write_png(photo.result, rgb)
        return (shown(photo.gray), shown(rgb)), str(photo.result)

    def picked(event: gr.SelectData):
        return event.index

    with gr.Blocks(
        title="Restore a photo", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)
    ) as blocks:
        photo, chosen = gr.State(time_to_live=KEPT_SECONDS), gr.State(0)
        gr.Markdown(INTRODUCTION)
        upload = gr.File(label="Photo", file_types=["image"], type="filepath", elem_id="upload")
        editor = gr.ImageEditor(
            label="Damage",
            type="numpy",
            image_mode="RGBA",
            sources=(),
            transforms=(),
            format="png",
            layers=False,
            brush=gr.Brush(colors=["rgb(255, 60, 30)"], color_mode="fixed"),
            elem_id="damage",
        )
        found = gr.Markdown(elem_id="found")
        start = gr.Button("Restore", variant="primary", elem_id="restore")
        compare = gr.ImageSlider(
            label="Before and after", interactive=False, format="webp", elem_id="compare"
        )
        gallery = gr.Gallery(
            label="Colourings: the likeliest, and others that are plausible",
            columns=3,
            elem_id="colourings",
            format="webp",
            allow_preview=False,
        )
        saturation = gr.Slider(0, 2, 1, step=0.05, label="Saturation", elem_id="saturation")
        download = gr.DownloadButton("Download PNG", elem_id="download")

        result = [chosen, saturation, gallery, compare, download]
        choice = [photo, chosen, saturation]
        # one after another: a photo dropped while another is restored waits, and then takes its place
        one_by_one = {"concurrency_id": "photo", "concurrency_limit": 1}
        upload.change(checked(opened), upload, [photo, editor, found, *result], **one_by_one)
        start.click(checked(restored), [photo, editor], result, **one_by_one)
        gallery.select(picked, None, chosen).then(colored, choice, [compare, download], **one_by_one)
        saturation.input(colored, choice, [compare, download], trigger_mode="always_last", **one_by_one)
    return blocks


def main() -> None:
    """Load the folds and serve until Ctrl-C or SIGTERM."""
    settings = parse_settings(Settings)
    device = launch(settings.device).device
    load_detector(DETECTOR)
    paths = fold_checkpoints(trained_or_shipped(settings.run_dir), None)
    models, descriptions = zip(*(load_model(path, device) for path in paths), strict=True)
    if names := {description["model"] for description in descriptions} - {"restorer"}:
        raise InputError(
            f"{paths[0].parents[1]}: holds a {names.pop()}, the app needs restorer; see --name"
        )
    # Gradio itself opens what a page sends as its painting
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    Image.init()
    Image.ID[:] = IMAGE_FORMATS
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # deletes the files, as Ctrl-C does
    with tempfile.TemporaryDirectory(prefix="restore-photo-") as folder:  # of uploads and results
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when Gradio is imported
        try:
            import gradio as gr
        except ImportError:
            raise InputError("app.py: Gradio is missing; pip install -r requirements-app.txt") from None
        try:
            page(list(models)).queue(max_size=16).launch(
                server_name=settings.host,
                server_port=settings.port,
                share=False,  # Gradio's default is a public address on Kaggle
                max_file_size=MAX_BYTES,
                ssr_mode=False,  # would need Node.js
                footer_links=[],
                theme=gr.themes.Base(font="sans-serif", font_mono="monospace"),  # no fonts from the network
            )
        except OSError as error:
            found = f"--host {settings.host} --port {settings.port}: {error}"
            raise InputError(f"{found}; choose another --port") from None


if __name__ == "__main__":
    run_script(main)
