"""Training losses: each takes tensors and returns named terms whose weighted sum is minimized."""

import torch
from torch import Tensor
from torch.nn import functional as F

from src.metrics import SSIM_WINDOW


def pipeline_loss(
    mask_logits: Tensor, inpainted: Tensor, colorized: Tensor, mask: Tensor, gray: Tensor, rgb: Tensor
) -> dict[str, Tensor]:
    """Terms of the three-stage pipeline, each stage against its own target.

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
    """pix2pix: fool the discriminator, stay near the truth; `fake` and `rgb` (B, 3, H, W) in [-1, 1]."""
    return {
        "adversarial": F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits)),
        "l1": F.l1_loss(fake, rgb),
    }


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
    """Tell real from generated; the mean of both cross-entropies, as in the report."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return {"discriminator": (real + fake) / 2}


def masked_ssim_loss(pred: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """1 - M of grey images, differentiable: the one-dimensional SSIM of the lost pixels in raster order.

    Args:
        pred, true: (B, 1, H, W) in [0, 1]; 1 is taken as the range of the data.
        mask: (B, 1, H, W), 1 where lost. An image with fewer than 7 lost pixels counts 0.

    Constants and the sample covariance are those of skimage's `structural_similarity` (Wang et al. 2004).
    """
    lost = mask > 0.5
    place, counts = lost.flatten().nonzero()[:, 0], lost.flatten(1).sum(dim=1).tolist()
    losses = []
    for x, y in zip(*(images.flatten()[place].split(counts) for images in (pred, true)), strict=True):
        if len(x) < SSIM_WINDOW:
            losses.append(x.sum() * 0)
            continue
        moments = torch.stack([x, y, x * x, y * y, x * y])[:, None]
        mean_x, mean_y, xx, yy, xy = F.avg_pool1d(moments, SSIM_WINDOW, stride=1)[:, 0]
        sample = SSIM_WINDOW / (SSIM_WINDOW - 1)
        var_x, var_y = sample * (xx - mean_x**2), sample * (yy - mean_y**2)
        cov = sample * (xy - mean_x * mean_y)
        c1, c2 = 0.01**2, 0.03**2
        similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
        similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
        losses.append(1 - similarity.mean())
    return torch.stack(losses).mean()


def inpainting_loss(pred: Tensor, true: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """L1 over the lost pixels and the score's own M; arguments as for `masked_ssim_loss`."""
    l1 = (F.l1_loss(pred, true, reduction="none") * mask).sum() / mask.sum().clamp(min=1)
    return {"inpaint_l1": l1, "inpaint_ssim": masked_ssim_loss(pred, true, mask)}


def histogram_correlation(a: Tensor, b: Tensor) -> Tensor:
    """OpenCV's HISTCMP_CORREL, differentiable: (B, K) and (B, K) to (B,), -1 to 1."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return F.cosine_similarity(a, b, dim=1)


def color_loss(
    hue_logits: Tensor, chroma: Tensor, histogram: Tensor, counts: Tensor, chromas: Tensor
) -> dict[str, Tensor]:
    """Cross-entropy of the hues, correlation of the image's histogram, and error of the chroma.

    Args:
        hue_logits: (B, 180, h, w).
        chroma: (B, 180, h, w), predicted for each hue, in units of 255.
        histogram: (B, 180), predicted for the whole image.
        counts: (B, 180, h, w), true pixels of each hue in each cell.
        chromas: (B, 180, h, w), the sum of their true chroma.

    The squared error makes the chroma a mean; an absolute one would make it a median, which fades.
    """
    log_p = hue_logits.log_softmax(dim=1)
    share = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    mean = chromas / counts.clamp(min=1)
    correlation = histogram_correlation(histogram, share.mean(dim=(2, 3)))
    return {
        "hue": -(share * log_p).sum(dim=1).mean(),
        "histogram": (1 - correlation).mean(),
        "chroma": (share * (chroma - mean) ** 2).sum(dim=1).mean(),
    }
