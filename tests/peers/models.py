"""Encoders in plain PyTorch, of the shapes that Terrane's have, to be timed beside them. Weights are random: only the
work counts, and `count_flops` tells how much it is."""
import torch
from torch import nn
from torch.nn import functional

from peers import DATES

attention_flops = 0  # of the forward passes since it was set to 0


def attend(q, k, v):
    """softmax(q k^T / sqrt(d)) v, by the fused kernel where this PyTorch has one."""
    global attention_flops
    attention_flops += 4 * q.shape[:-1].numel() * k.shape[-2] * q.shape[-1]
    if hasattr(functional, "scaled_dot_product_attention"):
        return functional.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


def mlp(dim):
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


class ViTBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj, self.mlp = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), mlp(dim)

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.proj(attend(qkv[0], qkv[1], qkv[2]).transpose(1, 2).reshape(b, n, c))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """MAE's ViT over images, and Prithvi's over `frames` dates (patches of one date)."""

    def __init__(self, dim=768, depth=12, heads=12, patch=16, channels=3, frames=0, side=224):
        super().__init__()
        self.shape = (channels, frames, side, side) if frames else (channels, side, side)
        tokens = max(frames, 1) * (side // patch) ** 2
        self.embed = (nn.Conv3d(channels, dim, (1, patch, patch), (1, patch, patch)) if frames
                      else nn.Conv2d(channels, dim, patch, patch))
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("position", torch.randn(1, tokens + 1, dim) * 0.02)
        self.blocks = nn.Sequential(*[ViTBlock(dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        return self.norm(self.blocks(x))[:, 1:].mean(dim=1)


class HieraBlock(nn.Module):
    """Attention within `windows` groups of tokens (the window is the fastest index), queries pooled by `pool`."""

    def __init__(self, dim, out, heads, pool, window, local):
        super().__init__()
        self.out, self.heads, self.pool, self.window, self.local = out, heads, pool, window, local
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(out, eps=1e-6)
        self.qkv, self.proj, self.mlp = nn.Linear(dim, 3 * out), nn.Linear(out, out), mlp(out)
        self.skip = nn.Linear(dim, out) if dim != out else None

    def forward(self, x):
        b, n, _ = x.shape
        y = self.norm1(x)
        if self.skip is not None:
            x = self.skip(y)
        if self.pool > 1:
            x = x.view(b, self.pool, n // self.pool, self.out).max(dim=1).values
        windows = n // (self.pool * self.window) if self.local else 1
        size = self.out // self.heads
        q, k, v = self.qkv(y).reshape(b, -1, windows, 3, self.heads, size).permute(3, 0, 4, 2, 1, 5)
        if self.pool > 1:
            q = q.reshape(b, self.heads, windows, self.pool, -1, size).max(dim=3).values
        x = x + self.proj(attend(q, k, v).transpose(1, 3).reshape(b, -1, self.out))
        return x + self.mlp(self.norm2(x))


class Hiera(nn.Module):
    def __init__(self, stages, dim=96, heads=1, side=224):
        super().__init__()
        self.shape = (3, side, side)
        self.embed = nn.Conv2d(3, dim, 7, 4, 3)
        self.register_buffer("position", torch.randn(1, (side // 4) ** 2, dim) * 0.02)
        blocks, window, local = [], 64, (True, True, False, False)
        for stage, depth in enumerate(stages):
            for i in range(depth):
                enters = stage > 0 and i == 0  # pools, doubles, and attends as the stage before it
                out = 2 * dim if enters else dim
                if enters:
                    heads, window = 2 * heads, window // 4
                where = local[stage - 1] if enters else local[stage]
                blocks.append(HieraBlock(dim, out, heads, 4 if enters else 1, window, where))
                dim = out
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x):
        x = self.embed(x)
        b, c, h, w = x.shape
        x = x.permute(0, 2, 3, 1).reshape(b, h * w, c) + self.position
        # position within a mask unit of 8 x 8 tokens before the unit, lowest bits first
        x = x.view(b, h // 8, 2, 2, 2, w // 8, 2, 2, 2, c).permute(0, 4, 8, 3, 7, 2, 6, 1, 5, 9)
        return self.norm(self.blocks(x.reshape(b, h * w, c)).mean(dim=1))


MODELS = {
    "mae-vit-base": lambda: ViT(),
    "prithvi-v1-100m": lambda: ViT(channels=6, frames=DATES["prithvi-v1-100m"]),
    "prithvi-v2-300m": lambda: ViT(1024, 24, 16, channels=6, frames=DATES["prithvi-v2-300m"]),
    "hiera-tiny": lambda: Hiera((1, 2, 7, 2)),
    "hiera-base": lambda: Hiera((2, 3, 16, 3)),
}


def build(name):
    torch.manual_seed(0)
    return MODELS[name]()


def make_image(model, batch):
    return torch.rand(batch, *model.shape)


def count_flops(model, image):
    """Of one forward pass: convolutions, linear layers and attention, two per multiplication and addition."""
    global attention_flops
    total, hooks = [0], []

    def hook(module, _inputs, output):
        total[0] += 2 * output.numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
            hooks.append(module.register_forward_hook(hook))
    attention_flops = 0
    with torch.no_grad():
        model(image)
    for one in hooks:
        one.remove()
    return total[0] + attention_flops


class TrainingStep:
    """Forward, cross entropy of a linear head over the mean, gradients of all, AdamW."""

    def __init__(self, name, batch, classes=10):
        model = build(name)
        self.image = make_image(model, batch)
        width = model.norm.normalized_shape[0]
        self.model = nn.Sequential(model, nn.Linear(width, classes)).train()
        self.labels = torch.arange(batch) % classes
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, weight_decay=0.05)

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(self.model(self.image), self.labels).backward()
        self.optimizer.step()
