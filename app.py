"""Restore a photo in the browser: python app.py"""

import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from src.utils.cli import RunFolder, parse_settings, run_script
from src.utils.errors import InputError

MAX_PIXELS = 12_000_000
MAX_UPLOAD = "50mb"
KEEP_RESULTS = 4  # last ones of a session: several events may be queued, and each gets its file
KEEP_SECONDS = 3600  # uploads and results are deleted then, and when the app ends
INTRODUCTION = """# Restore a photo
Drop a photo (at most 12 megapixels). The red areas will be painted in; correct them with the brush
and the eraser. Your photo does not leave the machine that serves this page."""
PICTURE_HEIGHT = "min(560px, 105vw)"


@dataclass(frozen=True)
class Settings:
    """Serve the page; it needs `pip install -r requirements/app.txt` as well."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 7860
    """Port to listen on."""
    device: str = "auto"
    """auto (the GPU if there is one), cpu, cuda, cuda:1 or mps."""
    folders: RunFolder = field(default_factory=RunFolder)


def page_error(function):
    """`function`, whose `InputError` becomes a message on the page."""
    import gradio as gr

    def call(*arguments):
        try:
            return function(*arguments)
        except InputError as error:
            reason = str(error).removeprefix(f"{arguments[0]}: ")  # a path on this server
            raise gr.Error(reason, print_exception=False) from None

    return call


class Handlers:
    """The page's answers to its events, for a `Pipeline` of restorers."""

    def __init__(self, pipeline):
        self.pipeline = pipeline

    def opened(self, path):
        import gradio as gr

        from src.damage.finders import report_damage
        from src.session import Session, in_editor, marked
        from src.utils.images import read_photo

        hidden = gr.Column(visible=False)
        nothing = (0, 1.0, None, None, None)  # choice, saturation, and no result
        if path is None:
            return None, hidden, None, None, hidden, *nothing
        start = time.monotonic()
        gray, clear, details = read_photo(Path(path), MAX_PIXELS)
        mask, line = report_damage(self.pipeline.find, gray, clear)
        session = Session(Path(path).stem, gray, mask, details)
        value = {"background": in_editor(gray), "layers": [marked(mask)], "composite": None}
        pages = f" Only the first of {details.frames} pages." if details.frames > 1 else ""
        found = f"In {time.monotonic() - start:.1f} s: {line}.{pages}"
        return session, gr.Column(visible=True), value, found, hidden, *nothing

    def restored(self, session, editor, repair):
        import gradio as gr

        if session is None:
            raise InputError("drop a photo first")
        start = time.monotonic()
        mask = session.corrected(editor["layers"]) & repair
        session.restore(self.pipeline, mask)
        pictures = gr.Gallery(session.thumbnails(), selected_index=0)
        took = f"Restored in {time.monotonic() - start:.1f} s; {mask.mean():.1%} was painted in."
        result = self.colored(session, 0, 1.0)
        return took, gr.Column(visible=True), 0, 1.0, pictures, *result

    def colored(self, session, chosen, saturation):
        from src.session import thumbnail
        from src.utils.images import write_png

        if session is None or session.luma is None:
            return None, None
        rgb = session.colored(chosen, saturation)
        folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
        result = folder / f"{session.name}_restored.png"
        write_png(result, rgb, session.details)
        session.results.append(result)
        for old in session.results[:-KEEP_RESULTS]:
            session.results.remove(old)
            shutil.rmtree(old.parent, ignore_errors=True)
        return (thumbnail(session.gray), thumbnail(rgb)), str(result)


def page(pipeline):
    """The page as `gradio.Blocks`, for a `Pipeline` of restorers."""
    import gradio as gr

    from src.utils.images import IMAGE_SUFFIXES

    def picked(event: gr.SelectData):
        return event.index

    handlers = Handlers(pipeline)
    cache = (600, KEEP_SECONDS)
    with gr.Blocks(title="Restore a photo", analytics_enabled=False, delete_cache=cache) as blocks:
        session, chosen = gr.State(time_to_live=KEEP_SECONDS), gr.State(0)
        gr.Markdown(INTRODUCTION)
        kinds = {"file_types": ["image", *sorted(IMAGE_SUFFIXES)], "type": "filepath"}
        upload = gr.File(label="Drop a photo here", elem_id="upload", height=140, **kinds)
        with gr.Row():
            with gr.Column(visible=False, min_width=360, scale=1) as before:
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
                    canvas_size=(1, 1),  # marks would not line up with a photo smaller than this
                    height=PICTURE_HEIGHT,
                )
                found = gr.Markdown(elem_id="found")
                without = "Off, the photo is only coloured."
                repair = gr.Checkbox(True, label="Repair damage", info=without)
                start = gr.Button("Restore", variant="primary", elem_id="restore")
            with gr.Column(visible=False, min_width=360, scale=1) as after:
                look = {"interactive": False, "format": "webp", "height": PICTURE_HEIGHT}
                compare = gr.ImageSlider(label="Before and after", elem_id="compare", **look)
                took = gr.Markdown(elem_id="took")
                gr.Markdown("The most probable colours, and alternatives:")
                look = {"format": "webp", "columns": 3, "height": None, "show_label": False}
                gallery = gr.Gallery(elem_id="colorizations", allow_preview=False, **look)
                saturation = gr.Slider(0, 2, 1, step=0.05, label="Saturation", elem_id="saturation")
                download = gr.DownloadButton("Download PNG", elem_id="download")

        result = [chosen, saturation, gallery, compare, download]
        choice = [session, chosen, saturation]
        # a photo dropped while another is being restored waits
        one_by_one = {"concurrency_id": "photo", "concurrency_limit": 1}
        page_parts = [session, before, editor, found, after, *result]
        upload.change(page_error(handlers.opened), upload, page_parts, **one_by_one)
        inputs, outputs = [session, editor, repair], [took, after, *result]
        start.click(page_error(handlers.restored), inputs, outputs, **one_by_one)
        outputs = [compare, download]
        recolor = {"fn": handlers.colored, "inputs": choice, "outputs": outputs, **one_by_one}
        gallery.select(picked, None, chosen).then(**recolor)
        saturation.input(**recolor, trigger_mode="always_last")
    return blocks


def main() -> None:
    """Load the folds and serve until Ctrl-C or SIGTERM."""
    settings = parse_settings(Settings)
    from PIL import Image

    from src.pipeline import Pipeline
    from src.runs import trained_or_shipped
    from src.utils.distributed import launch
    from src.utils.images import IMAGE_FORMATS

    run_dir = trained_or_shipped(settings.folders)
    pipeline = Pipeline.load(run_dir, style="visual", device=launch(settings.device).device)
    if (model := pipeline.recipe["model"]) != "restorer":
        raise InputError(f"{run_dir}: holds a {model}, the app needs a restorer; see --name")
    # Gradio opens the painted layers itself, in any format and size that PIL permits
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # PIL refuses twice as many
    Image.init()
    Image.ID[:] = IMAGE_FORMATS
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # deletes the files, as Ctrl-C does
    with tempfile.TemporaryDirectory(prefix="restore-photo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when Gradio is imported
        # at the start Gradio requests its own address, which a proxy could not reach
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
        try:
            import gradio as gr
        except ModuleNotFoundError:
            raise InputError("Gradio is missing; pip install -r requirements/app.txt") from None
        try:
            page(pipeline).queue(max_size=16).launch(
                server_name=settings.host,
                server_port=settings.port,
                share=False,  # Gradio's default is a public address on Kaggle
                max_file_size=MAX_UPLOAD,
                ssr_mode=False,  # would need Node.js
                footer_links=[],
                # no fonts from the network
                theme=gr.themes.Base(font="sans-serif", font_mono="monospace"),
            )
        except OSError as error:
            found = f"--host {settings.host} --port {settings.port}: {error}"
            raise InputError(f"{found}; choose another --port") from None


if __name__ == "__main__":
    run_script(main)
