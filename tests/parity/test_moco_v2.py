"""A step of MoCo v2 against its pseudocode (arXiv 1911.05722, algorithm 1) in float64."""

import copy

import torch
from torch.nn import functional as F

from cgh_bench.backbones.timm import Timm
from cgh_bench.pretrain.methods.moco_v2 import MocoV2


def test_three_steps_are_those_of_the_pseudocode():
    torch.manual_seed(0)
    config = MocoV2(dim=8, hidden=16, queue_length=20, momentum=0.9, temperature=0.2, bn_groups=1)
    method = config.build(Timm("test_resnet", (("zero_init_last", False),))).train()
    method.student.double()
    method.keys.double()
    f_q, f_k = copy.deepcopy(method.student), copy.deepcopy(method.student)
    queue = method.queue["keys"].clone().double()
    ours = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    theirs = torch.optim.SGD(f_q.parameters(), lr=0.05)
    for step in range(3):
        x_k, x_q = torch.randn(2, 8, 3, 33, 33, dtype=torch.float64)
        method.begin_step(step, 10)
        got = method([x_k, x_q], float(step))
        assert set(got) == {"infonce"}

        q = F.normalize(f_q.head(f_q.backbone(x_q)), dim=1)
        with torch.no_grad():
            for slow, fast in zip(f_k.parameters(), f_q.parameters(), strict=True):
                slow.copy_(0.9 * slow + 0.1 * fast)
            k = F.normalize(f_k.head(f_k.backbone(x_k)), dim=1)
        logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.T], dim=1)
        loss = F.cross_entropy(logits / 0.2, torch.zeros(8, dtype=torch.long))
        torch.testing.assert_close(got["infonce"].double(), loss, rtol=1e-5, atol=1e-5)
        queue = torch.roll(queue, -8 * step, dims=0)  # the oldest rows first
        queue = torch.roll(torch.cat([k, queue[8:]]), 8 * step, dims=0)
        torch.testing.assert_close(method.queue["keys"].double(), queue, rtol=0, atol=1e-5)

        for optimizer, value in ((ours, got["infonce"]), (theirs, loss)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
