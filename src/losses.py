"""Training losses: pure functions of tensors that return named terms; their weighted sum counts.

SSIM and correlation are differentiable here; the exact ones for uint8 images are in `src.metrics`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from src.metrics import SSIM_WINDOW


def ssim(x: Tensor, y: Tensor, window: tuple[int, int], data_range: float = 1.0) -> Tensor:
    """Mean structural similarity (Wang et al. 2004), a scalar, at most 1.

    Constants and the sample covariance are those of skimage's `structural_similarity`.

    Args:
        x, y: (K, H, W) float, at least as large as the window.
        window: rows and columns of the window; (1, 7) for a sequence.
        data_range: largest less smallest possible value.
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

    Args:
        x, y: (B, K, H, W) in [0, 1], with a data range of 1.
        mask: (B, 1, H, W), 1 where lost. An image with fewer than 7 lost pixels has an M of 1.
    """
    lost = mask[:, 0] > 0.5
    indices = lost.flatten().nonzero()[:, 0]
    counts = lost.flatten(1).sum(dim=1).tolist()
    sequences = (
        image.transpose(0, 1).flatten(1)[:, indices].split(counts, dim=1) for image in (x, y)
    )
    scores = []
    for a, b in zip(*sequences, strict=True):
        if a.shape[1] < SSIM_WINDOW:
            scores.append(1 + a.sum() * 0)  # a constant that has a gradient
        else:
            scores.append(ssim(a[:, None], b[:, None], (1, SSIM_WINDOW)))
    return torch.stack(scores)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """OpenCV's HISTCMP_CORREL of histograms: (B, K) and (B, K) to (B,), -1 to 1."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return F.cosine_similarity(a, b, dim=1)


def inpainting_loss(pred: Tensor, true: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """L1 over the lost pixels, and 1 - M, the score's own measure.

    Args:
        pred, true: (B, 1, H, W) in [0, 1].
        mask: (B, 1, H, W), 1 where lost.
    """
    l1 = (F.l1_loss(pred, true, reduction="none") * mask).sum() / mask.sum().clamp(min=1)
    return {"inpaint_l1": l1, "inpaint_ssim": (1 - masked_ssim(pred, true, mask)).mean()}


def color_loss(
    hue_logits: Tensor, chroma: Tensor, counts: Tensor, chromas: Tensor
) -> dict[str, Tensor]:
    """Cross-entropy of the hues, correlation of the image's histogram, and error of the chroma.

    Args:
        hue_logits: (B, 180, h, w).
        chroma: (B, 180, h, w), predicted per hue, in units of 255.
        counts: (B, 180, h, w), number of true pixels per hue and cell.
        chromas: (B, 180, h, w), sum of their true chroma.

    The image's histogram is the mean of its cells' distributions. The squared error makes the
    chroma a mean; an absolute one would make it a median, which fades.
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
    mask_logits: Tensor,
    inpainted: Tensor,
    colorized: Tensor,
    mask: Tensor,
    gray: Tensor,
    rgb: Tensor,
) -> dict[str, Tensor]:
    """Mask, inpainting and colour, each against its own target.

    Args:
        mask_logits: (B, 1, H, W), against `mask` (B, 1, H, W) of 0 and 1.
        inpainted: (B, 1, H, W) in [-1, 1], against the undamaged `gray`.
        colorized: (B, 3, H, W) in [-1, 1], against `rgb`.
    """
    return {
        "mask": F.binary_cross_entropy_with_logits(mask_logits, mask),
        "inpaint": F.l1_loss(inpainted, gray),
        "colorize": F.l1_loss(colorized, rgb),
    }


def generator_loss(fake_logits: Tensor, fake: Tensor, rgb: Tensor) -> dict[str, Tensor]:
    """Fool the discriminator and stay close to the truth.

    Args:
        fake_logits: the discriminator's output for `fake`, any shape.
        fake, rgb: (B, 3, H, W) in [-1, 1].
    """
    return {
        "adversarial": F.binary_cross_entropy_with_logits(
            fake_logits, torch.ones_like(fake_logits)
        ),
        "l1": F.l1_loss(fake, rgb),
    }


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
    """Mean cross-entropy of real and generated images, as in the team's report."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return {"discriminator": (real + fake) / 2}
