"""The loss of hue distributions."""

from torch import Tensor

from src.losses.similarity import correlation


def color_loss(hue_logits: Tensor, chroma: Tensor, counts: Tensor, chromas: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of the hues, correlation of the image's histogram, and error of the chroma.

    Args:
        hue_logits: (B, 180, h, w).
        chroma: (B, 180, h, w), predicted for each hue, in units of 255.
        counts: (B, 180, h, w), true pixels of each hue in each cell.
        chromas: (B, 180, h, w), the sum of their true chroma.

    The image's histogram is the mean of its cells' distributions. The squared error makes the chroma a
    mean; an absolute one would make it a median, which fades.
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
