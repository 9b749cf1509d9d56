"""Losses of a few training steps whose terms are plain means: python -m tests.distributed_steps
DEVICES"""

import json
import sys

import torch
from skimage import data

from src.models import create_model
from src.training.state import TrainingState, training_step
from src.utils.distributed import average, launch

if __name__ == "__main__":
    fabric = launch("cpu", int(sys.argv[1]))
    torch.manual_seed(0)
    state = TrainingState(create_model("full_pipeline", encoder="lite0", ema_decay=0.9))
    model = state.model
    # AdamW's first steps are the signs of the gradients, which the last digit of a small one
    # decides
    state.optimizers = {"model": torch.optim.SGD(model.parameters(), lr=0.1)}
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # statistics of a batch's part are not those of the whole
    photo = torch.from_numpy(data.coffee()).permute(2, 0, 1)
    crops = torch.stack([photo[:, 60 * i : 60 * i + 64, 90 : 90 + 64] for i in range(4)])
    gray = crops.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
    mask = torch.zeros_like(gray)
    mask[..., 20:40, 10:50] = 255
    batch = {"rgb": crops, "gray": gray, "mask": mask, "damaged": gray.where(mask == 0, 10)}
    losses = []
    for _ in range(5):
        mine = {key: value[fabric.global_rank :: fabric.world_size] for key, value in batch.items()}
        terms = training_step(state, mine, 1e-4, fabric)
        values = [term.detach() for term in terms.values()]
        average(fabric, values)
        losses.append([float(value) for value in values])
    if fabric.is_global_zero:
        weights = [float(p.detach().double().abs().sum()) for p in state.ema.module.parameters()]
        print(json.dumps({"processes": fabric.world_size, "losses": losses, "weights": weights}))
