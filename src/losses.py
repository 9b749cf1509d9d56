"""Training losses: pure functions of tensors that return named terms.

SSIM and correlation are differentiable here; `src.metrics` has the exact ones for uint8 images.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from src.metrics import SSIM_WINDOW


def ssim(x: Tensor, y: Tensor, window: tuple[int, int], data_range: float = 1.0) -> Tensor:
    """Mean structural similarity (Wang et al. 2004) of (K, H, W) images, a scalar, at most 1.

    Constants and the sample covariance are those of skimage's `structural_similarity`. `window`
    has rows and columns, (1, 7) for a sequence.
    """
    count = window[0] * window[1]
    sample = count / (count - 1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    moments = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = F.avg_pool2d(moments, window, stride=1)
    var_x, var_y = sample * (xx - mean_x**2), sample * (yy - mean_y**2)
    covariance = sample * (xy - mean_x * mean_y)
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()


def masked_ssim(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The score's M per image, (B,): the one-dimensional SSIM of the lost pixels, row by row.

    `x` and `y` are (B, K, H, W) in [0, 1]; `mask` is (B, 1, H, W), 1 where lost. An image with
    fewer than 7 lost pixels has an M of 1.
    """
    scores = []
    for images, lost in zip(torch.stack([x, y], dim=1), mask[:, 0] > 0.5, strict=True):
        pixels = images[:, :, None, lost]  # (2, K, 1, number of pixels)
        if pixels.shape[-1] < SSIM_WINDOW:
            scores.append(1 + pixels.sum() * 0)  # a constant with a (zero) gradient
        else:
            scores.append(ssim(*pixels, (1, SSIM_WINDOW)))
    return torch.stack(scores)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """OpenCV's HISTCMP_CORREL of histograms: (B, K) and (B, K) to (B,), -1 to 1."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return F.cosine_similarity(a, b, dim=1)


def inpainting_loss(pred: Tensor, true: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """L1 over the lost pixels, and 1 - M; (B, 1, H, W) in [0, 1], `mask` 1 where lost."""
    l1 = (F.l1_loss(pred, true, reduction="none") * mask).sum() / mask.sum().clamp(min=1)
    return {"inpaint_l1": l1, "inpaint_ssim": (1 - masked_ssim(pred, true, mask)).mean()}


def color_loss(
    hue_logits: Tensor, chroma: Tensor, counts: Tensor, chromas: Tensor
) -> dict[str, Tensor]:
    """Cross-entropy of the hues, correlation of the image's histogram, and error of the chroma.

    All are (B, 180, h, w): `chroma` is predicted per hue, in units of 255; `counts` is the number
    of true pixels per hue and cell, and `chromas` the sum of their chroma.
    The image's histogram is the mean of its cells' distributions. The squared error makes the
    chroma a mean; an absolute one would make it a median, which is duller.
    """
    log_p = hue_logits.log_softmax(dim=1)
    share = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    histogram = log_p.exp().mean(dim=(2, 3))
    mean = chromas / counts.clamp(min=1)
    return {
        "hue": -(share * log_p).sum(dim=1).mean(),
        "histogram": (1 - correlation(histogram, share.mean(dim=(2, 3)))).mean(),
        "chroma": (share * (chroma - mean) ** 2).sum(dim=1).mean(),
    }


def three_stage_loss(
    logits: Tensor, inpainted: Tensor, colorized: Tensor, mask: Tensor, gray: Tensor, rgb: Tensor
) -> dict[str, Tensor]:
    """Logits against `mask` of 0 and 1, inpainting against the undamaged `gray`, colour against
    `rgb`; (B, 1 or 3, H, W), images in [-1, 1]."""
    return {
        "mask": F.binary_cross_entropy_with_logits(logits, mask),
        "inpaint": F.l1_loss(inpainted, gray),
        "colorize": F.l1_loss(colorized, rgb),
    }


def generator_loss(fake_logits: Tensor, fake: Tensor, rgb: Tensor) -> dict[str, Tensor]:
    """Fool the discriminator and stay close to the truth; images (B, 3, H, W) in [-1, 1]."""
    ones = torch.ones_like(fake_logits)
    adversarial = F.binary_cross_entropy_with_logits(fake_logits, ones)
    return {"adversarial": adversarial, "l1": F.l1_loss(fake, rgb)}


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
    """Mean cross-entropy of real and generated images, as in the report of the team."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return {"discriminator": (real + fake) / 2}
