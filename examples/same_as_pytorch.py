"""Eight curves that look like four: SGD, Momentum, RMSProp and Adam, ours and PyTorch's, from the same weights.

A net is trained on XOR by each of our optimizers, and its copy in PyTorch by each of PyTorch's. Needs PyTorch
(pip install torch); nothing else in layerwise does.
"""

import argparse
from pathlib import Path

import numpy as np

import layers
import loss
import optim
from layerwise import datasets, interchange, pictures

RULES = {
    "SGD": (lambda: optim.SGD(1.0), lambda torch, w: torch.optim.SGD(w, 1.0)),
    # Ours has the learning rate inside the velocity, PyTorch outside: the same while the rate stays the same.
    "Momentum": (lambda: optim.Momentum(0.5, 0.9), lambda torch, w: torch.optim.SGD(w, 0.5, momentum=0.9)),
    # PyTorch adds epsilon to the root, and not under it.
    "RMSProp": (
        lambda: optim.RMSProp(0.01, beta=0.9, epsilon=1e-8, epsilon_inside=False),
        lambda torch, w: torch.optim.RMSprop(w, 0.01, alpha=0.9, eps=1e-8),
    ),
    "Adam": (lambda: optim.Adam(0.02), lambda torch, w: torch.optim.Adam(w, 0.02)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="decides the weights (default 0)")
    parser.add_argument("--steps", type=int, default=300, help="of every training (default 300)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64", help="(default float64)")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the picture (default: here)")
    parser.add_argument("--quick", action="store_true", help="30 steps")
    arguments = parser.parse_args()
    steps = 30 if arguments.quick else arguments.steps
    try:
        import torch
    except ImportError:
        raise SystemExit("this example compares with PyTorch, which is not installed: pip install torch") from None

    curves = {}
    for name, (ours, theirs) in RULES.items():
        net = new_net(arguments.seed, arguments.dtype)
        net_there = in_torch(net, torch)
        curves[name] = (
            train(net, ours(), steps),
            train_in_torch(net_there, theirs(torch, net_there.parameters()), steps, torch),
        )

    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "same_as_pytorch.png"
    pictures.save(picture(curves, torch.__version__), file)
    print(f"the curves are in {file}")
    furthest = 0.0
    for name, (ours, theirs) in curves.items():
        apart = float(np.max(np.abs(ours - theirs) / theirs))
        furthest = max(furthest, apart)
        print(
            f"{name:<10} loss after {steps} steps: {ours[-1]:.6e}, PyTorch {theirs[-1]:.6e}, at most {apart:.1e} apart"
        )
    print(f"of every loss, ours and PyTorch's differ by at most {furthest:.1e} of it")


def new_net(seed, dtype):
    """The net of the XOR example, its weights made."""
    chain = [layers.Linear(8), layers.Linear(4), layers.Sigmoid(), layers.Linear(2), layers.Softmax()]
    return layers.Model(chain, seed=seed, dtype=dtype).build((2,))


def in_torch(net, torch):
    """The same net in PyTorch, with the same weights."""
    nn = torch.nn
    copied = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 4), nn.Sigmoid(), nn.Linear(4, 2), nn.Softmax(dim=-1))
    copied.to(getattr(torch, net.dtype.name))
    interchange.to_torch(net, copied)
    return copied


def train(net, rule, steps):
    """The loss before each step, and after the last."""
    x, y = datasets.xor()
    error, losses = loss.MSE(), []
    for _ in range(steps):
        losses.append(error(net(x, training=True), y))
        rule(net, error)
    return np.array([*losses, error(net(x), y)])


def train_in_torch(net, rule, steps, torch):
    """The same in PyTorch."""
    x, y = (torch.from_numpy(each).to(next(net.parameters()).dtype) for each in datasets.xor())
    losses = []
    for _ in range(steps):
        rule.zero_grad()
        value = torch.nn.functional.mse_loss(net(x), y)
        value.backward()
        rule.step()
        losses.append(value.item())
    return np.array([*losses, torch.nn.functional.mse_loss(net(x), y).item()])


def picture(curves, version):
    """Ours as wide pale lines, PyTorch's as thin dark dashes in the middle of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss on XOR", yscale="log")
    for (name, (ours, theirs)), colour in zip(curves.items(), pictures.COLOURS, strict=False):
        axes.plot(ours, color=colour, linewidth=6, alpha=0.45, solid_capstyle="butt", label=name)
        axes.plot(theirs, color="black", linewidth=1.2, linestyle=(0, (4, 3)), label=f"{name}, PyTorch")
    axes.set_xlim(0, len(ours) - 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"Ours (wide) and PyTorch {version} (dashed), from the same weights", loc="left", fontsize="medium")
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize="small"
    )
    return figure


if __name__ == "__main__":
    main()
