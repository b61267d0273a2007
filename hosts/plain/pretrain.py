#!/usr/bin/env python3
"""Pre-trains veil-tiny on a GPU (or a CPU): the recipe of `veilformer pretrain`, in PyTorch.

    python pretrain.py WORK OUT --steps 15000 --seed 1

WORK is a folder in which `veilformer pretrain --run WORK` has prepared vocab.txt and corpus.u16 (--stop-after 1 is enough).
OUT gets the model folder: config.json, model.safetensors, vocab.txt; `veilformer calibrate` makes it ready for encryption.
Needs torch and safetensors.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, relu

CONFIG = dict(
    layers=2, width=128, heads=2, length=64, feed_forward=256, head_rank=0, head_hidden=128, classes=2, lora_rank=0,
    first_norm=False, embedding_affine=False, norm_epsilon=1e-5, loss="cross_entropy",
)
PAD, FIRST, SEPARATOR = 0, 2, 3
BATCH, RATE, RISE, BETAS, DECAY, CLIP, SHARE, POSITION = 64, 3e-3, 0.1, (0.9, 0.98), 0.01, 0.5, 0.25, 3.0
# (low, high, weight): what penalties pull the arguments of a site into.
NORM, KERNEL, GATE = (0.9, 2.2, 4.0), (-6.0, 0.0, 2.0), (-3.0, 3.0, 2.0)
SHORTEST, END_AT_LINE = 8, 1 / 3
# Pieces of a sequence, hidden or not, that its token 0 predicts.
OF_ALL = 8


def random_weights(vocabulary, generator):
    """Normal with variance 1/inputs; queries, keys and W_O smaller (see `Parameters::random`)."""
    d, f, hidden = CONFIG["width"], CONFIG["feed_forward"], CONFIG["head_hidden"]

    def normal(rows, columns, size=1.0):
        return torch.randn(rows, columns, generator=generator) * size / math.sqrt(rows)

    weights = {
        "embedding.token": torch.randn(vocabulary, d, generator=generator) / math.sqrt(d),
        "embedding.position_scale": torch.full((1, 1), POSITION / math.sqrt(d)),
    }
    for layer in range(CONFIG["layers"]):
        name = f"layer.{layer}."
        for norm in ["second_norm"] + ["first_norm"] * (layer > 0):
            weights[name + norm + ".gain"] = torch.ones(1, d)
            weights[name + norm + ".bias"] = torch.zeros(1, d)
        weights[name + "attention.query"] = normal(d, d, 0.5)
        weights[name + "attention.key"] = normal(d, d, 0.5)
        weights[name + "attention.value"] = normal(d, d)
        weights[name + "attention.output"] = normal(d, d, 0.2)
        weights[name + "feed_forward.expand"] = normal(d, 2 * f)
        weights[name + "feed_forward.contract"] = normal(f, d)
    weights["final_norm.gain"] = torch.ones(1, d)
    weights["final_norm.bias"] = torch.zeros(1, d)
    weights["head.up"] = normal(d, hidden)
    weights["head.classifier"] = normal(hidden, CONFIG["classes"])
    return weights


def sinusoids():
    length, width = CONFIG["length"], CONFIG["width"]
    token = torch.arange(length, dtype=torch.float64)[:, None]
    feature = torch.arange(width)[None, :]
    angle = token * 10000.0 ** (-(feature - feature % 2) / width)
    return torch.where(feature % 2 == 0, angle.sin(), angle.cos()).float()


def excess(argument, bound):
    low, high, weight = bound
    return 0.5 * weight * (argument - argument.clamp(low, high)).square().sum()


def forward(w, positions, tokens, mask, rows):
    """Logits of the tokens named by `rows` (into all tokens), and the sum of the penalties."""
    penalty = 0.0

    def norm(x, name, penalised=True):
        nonlocal penalty
        x = x - x.mean(-1, keepdim=True)
        variance = x.square().mean(-1, keepdim=True) + CONFIG["norm_epsilon"]
        if penalised:
            penalty = penalty + excess(variance, NORM)
        x = x * variance.rsqrt()
        return x * w[name + ".gain"] + w[name + ".bias"] if name else x

    batch, length = tokens.shape
    heads, width = CONFIG["heads"], CONFIG["width"]
    n, f = width // heads, CONFIG["feed_forward"]
    x = norm(w["embedding.token"][tokens] + w["embedding.position_scale"] * positions, "", False)
    for layer in range(CONFIG["layers"]):
        name = f"layer.{layer}."
        y = norm(x, name + "first_norm") if layer > 0 else x

        def project(p):
            return (y @ w[name + "attention." + p]).view(batch, length, heads, n).transpose(1, 2)

        q, k, v = project("query"), project("key"), project("value") * mask[:, None, :, None]
        squares = q.square().sum(-1)[..., None] + k.square().sum(-1)[..., None, :] - 2 * q @ k.transpose(-1, -2)
        exponent = -squares.clamp(min=0) / (2 * math.sqrt(n))
        penalty = penalty + excess(exponent, KERNEL)
        mixed = (exponent.exp() @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + mixed @ w[name + "attention.output"]
        a, b = (norm(x, name + "second_norm") @ w[name + "feed_forward.expand"]).split(f, -1)
        penalty = penalty + excess(b, GATE)
        x = x + (a * relu(b)) @ w[name + "feed_forward.contract"]
    y = norm(x.reshape(-1, width)[rows], "final_norm")
    return y @ w["embedding.token"].T, penalty


def segments(stream, random):
    """(start, length) of stretches that cover the stream; some end where a line does. In random order."""
    most = CONFIG["length"] - 1
    ends = numpy.flatnonzero(stream == SEPARATOR)
    ends = ends[random.random(len(ends)) < END_AT_LINE]
    out, start = [], int(random.integers(most))
    while start < len(stream):
        i = numpy.searchsorted(ends, start + SHORTEST - 1)
        end = int(ends[i]) + 1 if i < len(ends) else len(stream)
        end = min(end, start + most, len(stream))
        out.append((start, end - start))
        start = end
    out = numpy.array(out)
    random.shuffle(out)
    return out


def masked(stream, stretches, mask_piece, vocabulary, random):
    """Tokens, mask, the rows to predict and their pieces."""
    length = CONFIG["length"]
    tokens = numpy.full((len(stretches), length), PAD, dtype=numpy.int64)
    mask = numpy.zeros((len(stretches), length), dtype=numpy.float32)
    rows, targets = [], []
    for i, (start, taken) in enumerate(stretches):
        pieces = stream[start : start + taken]
        if pieces[-1] == SEPARATOR:
            pieces = pieces[:-1]
        tokens[i, 0] = FIRST
        tokens[i, 1 : 1 + len(pieces)] = pieces
        mask[i, : 1 + len(pieces)] = 1
        hide = 1 + numpy.flatnonzero((random.random(len(pieces)) < SHARE) & (pieces != SEPARATOR))
        words = pieces[pieces != SEPARATOR]
        drawn = random.choice(words, OF_ALL) if len(words) else []
        rows += [*[i * length] * len(drawn), *(i * length + hide)]
        targets += [*drawn, *tokens[i, hide]]
        kind = random.random(len(hide))
        tokens[i, hide[kind < 0.8]] = mask_piece
        swapped = hide[(kind >= 0.8) & (kind < 0.9)]
        tokens[i, swapped] = random.integers(vocabulary, size=len(swapped))
    return tokens, mask, numpy.array(rows), numpy.array(targets)


def probe(weights, positions, stream, mask_piece, sequences, device):
    """The yardstick of `pretrain::probe`: every fourth piece of the stream's first stretches."""
    length = CONFIG["length"]
    pieces = stream[: sequences * (length - 1)].astype(numpy.int64).reshape(-1, length - 1)
    tokens = numpy.concatenate([numpy.full((len(pieces), 1), FIRST), pieces], 1)
    places = numpy.arange(4, length, 4)
    targets = torch.tensor(tokens[:, places].reshape(-1), device=device)
    tokens[:, places] = mask_piece
    rows = (numpy.arange(len(tokens))[:, None] * length + places).reshape(-1)
    with torch.no_grad():
        mask = torch.ones(tokens.shape, device=device)
        logits, _ = forward(weights, positions, torch.tensor(tokens, device=device), mask, torch.tensor(rows, device=device))
        return cross_entropy(logits, targets).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=15000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    vocabulary = (arguments.work / "vocab.txt").read_text(encoding="utf-8").splitlines()
    stream = numpy.fromfile(arguments.work / "corpus.u16", dtype="<u2")
    mask_piece = vocabulary.index("[MASK]")
    random = numpy.random.default_rng(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    device = arguments.device
    weights = {
        name: value.to(device).requires_grad_(not name.startswith(("head.", "embedding.position_scale")))
        for name, value in random_weights(len(vocabulary), generator).items()
    }
    positions = sinusoids().to(device)
    trained = {name: w for name, w in weights.items() if w.requires_grad}
    plain = [w for name, w in trained.items() if name.endswith(("gain", "bias"))]
    matrices = [w for name, w in trained.items() if not name.endswith(("gain", "bias"))]
    groups = [dict(params=matrices, weight_decay=DECAY), dict(params=plain, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=1e-8)

    def triangle(step):
        done = (step + 0.5) / arguments.steps
        return done / RISE if done < RISE else (1 - done) / (1 - RISE)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, triangle)
    seen, todo = 0, segments(stream, random)
    for step in range(1, arguments.steps + 1):
        if len(todo) < BATCH:
            todo = segments(stream, random)
        now, todo = todo[:BATCH], todo[BATCH:]
        tokens, mask, rows, targets = masked(stream, now, mask_piece, len(vocabulary), random)
        seen += int(mask.sum())
        tokens, mask, rows, targets = (torch.from_numpy(x).to(device) for x in (tokens, mask, rows, targets))
        logits, penalty = forward(weights, positions, tokens, mask, rows)
        loss = cross_entropy(logits, targets)
        (loss + penalty / tokens.numel()).backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == arguments.steps:
            print(f"step {step}/{arguments.steps}, {seen} tokens, loss {loss.item():.4f}", flush=True)

    yardstick = probe(weights, positions, stream, mask_piece, 64, device)
    print(f"probe loss {yardstick:.6f}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file({name: w.detach().cpu().contiguous() for name, w in weights.items()}, arguments.out / "model.safetensors")
    shutil.copyfile(arguments.work / "vocab.txt", arguments.out / "vocab.txt")
    training = dict(
        task="masked language modelling",
        seed=arguments.seed,
        command=f"python pretrain.py WORK OUT --steps {arguments.steps} --seed {arguments.seed}",
        tokens=seen,
        steps=arguments.steps,
        probe_loss=yardstick,
    )
    config = dict(format=1, **CONFIG, vocabulary=len(vocabulary), training=training, approximations=[])
    (arguments.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
