"""Golden trajectories of the optimizers: every rule of ours against the library whose rule it equals.

    pip install torch==2.13.0 jax==0.10.2 optax==0.2.8 keras==3.15.1
    python tests/reference/make_optimizers.py            # all rules; or name some: ... Adam Muon

writes optimizers/gradients.npz (the stream of gradients that the rules are fed, (100, *shape) for parameter "0", "1",
...) and one optimizers/{Class}.npz per rule. Reading them needs NumPy only. In each file:

    about                   JSON: library, version, reference, script, and "cases", a list in which each case holds
                            id, optimizer and arguments (ours), library, version, reference and reference_arguments
                            (theirs), parameters (how many; they are fed the first so many streams)
    recorded                the numbers of the recorded steps, counted from 1
    {id}/{k}/start          parameter k before the first step
    {id}/{k}/steps          parameter k after each recorded step, (len(recorded), *shape)
    {id}/{k}/evaluation     the same for the evaluation weights, where they differ from the training weights
    {id}/lr                 where about says "scheduled": ["lr"], the learning rate of every step, the first one's at 0
    problem/{kind}/...      where about says "problem": {"kind": ...}, the arrays of the function that is minimised:
                            quadratic   0.5 p'Ap - b'p of one vector p; A, b
                            rosenbrock  (1 - p0)^2 + 100 (p1 - p0^2)^2; no arrays
                            mlp         mean over all elements of (tanh(x @ w1 + b1) @ w2 + b2 - y)^2; its parameters
                                        are w1, b1, w2, b2 in this order; x, y
    {id}/loss               with a problem: its value before each step
    {id}/evaluations        LBFGS: how often it had asked for value and gradient by the end of each step

Everything is float64. "fed_weight_decay": the library has no decay of our form, and was fed g + weight_decay * p.
"""

import copy
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import keras
import numpy as np
import optax
import optax.contrib
import torch

keras.backend.set_floatx("float64")
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

FOLDER = Path(__file__).resolve().parent / "optimizers"
LIBRARIES = {"torch": torch.__version__.split("+")[0], "optax": optax.__version__, "keras": keras.__version__}
STEPS = 100
RECORDED = [*range(1, 11), *range(20, STEPS + 1, 10)]


# ---- What the rules are fed

# Wide, vector, a vector that starts at zero, one number; tall, for rules that look at a whole parameter; three axes.
SHAPES = [(2, 3), (4,), (2,), (1,), (4, 2), (2, 3, 4)]
FLAT, NORMS, AXES = 4, 5, 6     # how many of them a rule is fed


def starts():
    rng = np.random.default_rng(1)
    start = [rng.standard_normal(shape) for shape in SHAPES]
    start[2][:] = 0.0
    return start


def stream():
    """Gradients that change every step, with exact zeros, 1e-8 and 1e3 among ordinary sizes."""
    rng = np.random.default_rng(2)
    wide, vector, zero, one, tall, cube = gradients = [rng.standard_normal((STEPS, *shape)) for shape in SHAPES]
    wide[:30, 0, 1] = 0.0                   # zero from the first step on, for long
    wide[:, 0, 2] = 0.0                     # zero for ever
    wide[::2, 1, 1] = 0.0                   # zero on and off, at the first step too
    wide[:, 1, 2] *= 1e-8                   # tiny for ever
    wide[[6, 39]] *= 1e3                    # a whole step of huge ones
    vector[:3] = 0.0                        # a whole parameter without gradient at the first steps
    vector[14:17] = 0.0                     # ... and later
    vector[:, 1] = np.abs(vector[:, 1])     # never changes sign
    vector[5::3, 0] *= 1e-8
    vector[60:, 2] = 0.0                    # zero from some step on
    vector[5::4, 3] *= 1e3
    zero[::5, 0] = 0.0
    one[2] *= 1e-8
    one[49] *= 1e3
    tall[14:17] = 0.0
    tall[1::4, 2, 0] *= 1e3
    cube[:10, 0] = 0.0
    cube[:, 1, 2, 3] *= 1e-8
    cube[20, 1] *= 1e3
    return gradients


def varying(peak):
    """Learning rates that rise, fall and jump, so that a rule cannot mistake lr(t) for lr(t - 1) or for a constant."""
    t = np.arange(STEPS)
    return peak * np.minimum((t + 1) / 10, 1.0) * 0.98**t * np.where(t >= 50, 1.5, 1.0)


class Problem:
    """A function to minimise: its arrays, its start, and its value and gradients (by torch's autograd) at a point."""

    def __init__(self, kind):
        rng = np.random.default_rng(3)
        self.kind, self.arrays = kind, {}
        if kind == "quadratic":
            root = rng.standard_normal((4, 4))
            self.arrays = {"A": root @ root.T + 0.1 * np.eye(4), "b": rng.standard_normal(4)}
            self.start = [rng.standard_normal(4)]
        elif kind == "rosenbrock":
            self.start = [np.array([-1.2, 1.0])]
        elif kind == "mlp":
            x = rng.standard_normal((20, 3))
            y = np.stack([np.sin(x[:, 0]) * x[:, 1], x[:, 2] ** 2 - x[:, 0]], axis=1)
            self.arrays = {"x": x, "y": y + 0.3 * rng.standard_normal(y.shape)}
            self.start = [0.5 * rng.standard_normal(shape) for shape in [(3, 4), (4,), (4, 2), (2,)]]

    def loss(self, parameters):
        arrays = {name: torch.tensor(a) for name, a in self.arrays.items()}
        if self.kind == "quadratic":
            (p,) = parameters
            return 0.5 * (p @ arrays["A"] @ p) - arrays["b"] @ p
        if self.kind == "rosenbrock":
            (p,) = parameters
            return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
        w1, b1, w2, b2 = parameters
        return torch.mean((torch.tanh(arrays["x"] @ w1 + b1) @ w2 + b2 - arrays["y"]) ** 2)

    def __call__(self, parameters):
        leaf_layers = [torch.tensor(np.array(p), requires_grad=True) for p in parameters]
        value = self.loss(leaf_layers)
        return float(value.detach()), [g.numpy() for g in torch.autograd.grad(value, leaf_layers)]

    def minimum(self):
        return float(-0.5 * self.arrays["b"] @ np.linalg.solve(self.arrays["A"], self.arrays["b"]))


# ---- The runners, one per library: each makes step(gradients, lr, value), which returns the parameters, and the
# evaluation weights or None


def found(reference):
    """What a reference names: an own composition of a library's parts, or the library's function or class."""
    if reference in COMPOSED:
        return COMPOSED[reference]
    library, *path = reference.split(".")
    thing = {"torch": torch, "optax": optax, "keras": keras}[library]
    for part in path:
        thing = getattr(thing, part)
    return thing


def run_torch(reference, arguments, start, problem):
    module = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(p)) for p in start])
    parameters = list(module)
    rule = found(reference)
    optimizer = rule(module if reference in COMPOSED else parameters, **arguments)

    def arrays(tensors):
        return [p.detach().numpy().copy() for p in tensors]

    def step(gradients, lr, value):
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = torch.tensor(g)
        if lr is not None:
            optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        if hasattr(optimizer, "evaluation"):
            return arrays(parameters), arrays(optimizer.evaluation())
        if reference == "torch.optim.ASGD":
            return arrays(parameters), arrays(optimizer.state[p]["ax"] for p in parameters)
        return arrays(parameters), None

    return step


def run_keras(reference, arguments, start, problem):
    variables = [keras.Variable(p, dtype="float64") for p in start]
    optimizer = found(reference)(**arguments)
    optimizer.build(variables)

    def step(gradients, lr, value):
        if lr is not None:
            optimizer.learning_rate = lr
        optimizer.apply([jnp.asarray(g) for g in gradients], variables)
        return [np.array(v.value) for v in variables], None

    return step


def run_optax(reference, arguments, start, problem):
    """The learning rate of a step is handed to a transformation made for it, over the same state: optax's schedules do
    not all count alike (schedule_free's own count starts at 1, that of the rule inside at 0)."""
    make = found(reference)
    parameters = [jnp.asarray(p) for p in start]
    if reference == "optax.lookahead":
        parameters = optax.LookaheadParams.init_synced(parameters)
    state = make(**arguments).init(parameters)

    def update(gradients, state, parameters, lr, **extra):
        now = make(**arguments) if lr is None else make(**arguments | {"learning_rate": lr})
        return now.update(gradients, state, parameters, **extra)

    fast_update = jax.jit(update)

    def step(gradients, lr, value):
        nonlocal parameters, state
        now = [jnp.asarray(g) for g in gradients], state, parameters, lr
        if reference == "optax.contrib.sam":
            updates, state = update(*now, grad_fn=lambda p, i: [jnp.asarray(g) for g in problem(p)[1]])
        elif reference == "optax.polyak_sgd":
            updates, state = fast_update(*now, value=value)
        else:
            updates, state = fast_update(*now)
        assert all(leaf.dtype != jnp.float32 for leaf in jax.tree.leaf_layers((updates, state))), reference
        parameters = optax.apply_updates(parameters, updates)
        shown, evaluation = parameters, None
        if reference == "optax.lookahead":
            shown, evaluation = parameters.fast, parameters.slow
        elif reference.startswith("optax.contrib.schedule_free"):
            evaluation = optax.contrib.schedule_free_eval_params(state, parameters)
        return [np.array(p) for p in shown], evaluation and [np.array(p) for p in evaluation]

    return step


RUNNERS = {"torch": run_torch, "keras": run_keras, "optax": run_optax}


# ---- References composed of a library's parts


def rmsprop_lr_outside(learning_rate, decay, eps, momentum):
    return optax.chain(optax.scale_by_rms(decay, eps, eps_in_sqrt=True), optax.trace(momentum),
                       optax.scale_by_learning_rate(learning_rate))


def yogi(learning_rate, initial_accumulator_value, **rest):
    return optax.chain(optax.scale_by_yogi(**rest, initial_accumulator_value=initial_accumulator_value),
                       optax.scale_by_learning_rate(learning_rate))


def signum(learning_rate, decay):
    return optax.chain(optax.ema(decay, debias=False), optax.scale_by_sign(),
                       optax.scale_by_learning_rate(learning_rate))


def lookahead(sync_period, slow_step_size, inner, inner_arguments):
    return optax.lookahead(found(inner)(**inner_arguments), sync_period, slow_step_size)


def sam(rho, inner, inner_arguments):
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(rho))
    return optax.contrib.sam(found(inner)(**inner_arguments), ascent, sync_period=2, opaque_mode=True)


class Around:
    """A torch optimizer with something around it."""

    def __init__(self, module, inner, inner_arguments, **arguments):
        self.module, self.arguments = module, arguments
        self.inner = found(inner)(module if inner in COMPOSED else list(module), **inner_arguments)


class Clip(Around):
    def step(self):
        if self.arguments["clip_value"] is not None:
            torch.nn.utils.clip_grad_value_(self.module.parameters(), self.arguments["clip_value"])
        if self.arguments["max_norm"] is not None:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.arguments["max_norm"])
        self.inner.step()


class Accumulate(Around):
    """As in loops written for torch: gradients of `steps` batches, each divided by `steps`, add up before one step."""

    count = 0

    def step(self):
        if self.count % self.arguments["steps"] == 0:
            self.sums = [torch.zeros_like(p) for p in self.module]
        self.count += 1
        for s, p in zip(self.sums, self.module, strict=True):
            s += p.grad / self.arguments["steps"]
        if self.count % self.arguments["steps"] == 0:
            for s, p in zip(self.sums, self.module, strict=True):
                p.grad = s
            self.inner.step()


class Average(Around):
    model = None

    def step(self):
        if self.model is None:
            function = torch.optim.swa_utils.get_ema_multi_avg_fn(self.arguments["decay"])
            self.model = torch.optim.swa_utils.AveragedModel(self.module, multi_avg_fn=function)
        self.inner.step()
        self.model.update_parameters(self.module)

    def evaluation(self):
        return list(self.model.module.parameters())


COMPOSED = {
    "optax.chain(scale_by_rms, trace, scale_by_learning_rate)": rmsprop_lr_outside,
    "optax.chain(scale_by_yogi, scale_by_learning_rate)": yogi,
    "optax.chain(ema, scale_by_sign, scale_by_learning_rate)": signum,
    "optax.lookahead": lookahead,
    "optax.contrib.sam": sam,
    "torch.nn.utils.clip_grad_value_, clip_grad_norm_": Clip,
    "torch, gradients / steps added up": Accumulate,
    "torch.optim.swa_utils.AveragedModel": Average,
}


# ---- LBFGS has a loop of its own: one step asks for value and gradients many times


def run_lbfgs(arguments, problem, steps):
    parameters = [torch.nn.Parameter(torch.tensor(p)) for p in problem.start]
    optimizer = torch.optim.LBFGS(parameters, **arguments)
    evaluations, path, losses, counts = 0, [], [], []

    def closure():
        nonlocal evaluations
        evaluations += 1
        optimizer.zero_grad()
        value = problem.loss(parameters)
        value.backward()
        return value

    for _ in range(steps):
        losses.append(float(optimizer.step(closure).detach()))
        path.append([p.detach().numpy().copy() for p in parameters])
        counts.append(evaluations)
    return path, np.array(losses), np.array(counts)


# ---- How our arguments are called there


def to(**names):
    """Their names for our arguments: to(learning_rate="lr"). A pair of names gives a pair; no string: a constant."""
    def translate(a):
        def value(name):
            if isinstance(name, tuple):
                return tuple(value(part) for part in name)
            return a[name] if isinstance(name, str) else name
        return {theirs: value(ours) for theirs, ours in names.items()}
    return translate


BETAS = ("beta1", "beta2")
ADAM = to(lr="lr", betas=BETAS, eps="epsilon", weight_decay="weight_decay", amsgrad="amsgrad", foreach=False)
SGD = to(lr="lr", momentum="momentum", dampening="dampening", nesterov="nesterov", weight_decay="weight_decay",
         foreach=False)


def optax_rmsprop(a):
    return dict(learning_rate=a["lr"], decay=a["beta"], eps=a["epsilon"], eps_in_sqrt=a["epsilon_inside"],
                momentum=a["momentum"] or None, centered=a["centered"])


def muon(a):
    """optax decays its matrices by weight_decay and the rest by adam_weight_decay; ours decays all alike."""
    return dict(learning_rate=a["lr"], beta=a["beta"], nesterov=a["nesterov"], ns_steps=a["steps"],
                weight_decay=a["weight_decay"], adam_weight_decay=a["weight_decay"])


def inside(a, **theirs):
    """The arguments of a wrapper's reference: its own, and the reference of the optimizer inside with its arguments."""
    rule = TABLE[a["optimizer"]["optimizer"]]
    given = rule.defaults | a["optimizer"]["arguments"]
    return theirs | dict(inner=rule.groups[0].reference, inner_arguments=rule.groups[0].translate(given))


def clip(a):
    return inside(a, clip_value=a["value"], max_norm=a["norm"])


def in_optax(a, **theirs):
    """The same for a wrapper of optax, whose adam and sgd take the place of torch's."""
    name, given = a["optimizer"]["optimizer"], TABLE[a["optimizer"]["optimizer"]].defaults | a["optimizer"]["arguments"]
    if name == "SGD":
        assert given["dampening"] == given["weight_decay"] == 0.0
        return theirs | dict(inner="optax.sgd", inner_arguments=to(
            learning_rate="lr", momentum="momentum", nesterov="nesterov")(given))
    assert name == "Adam"
    assert given["weight_decay"] == given["amsgrad"] == 0
    return theirs | dict(inner="optax.adam", inner_arguments=to(
        learning_rate="lr", b1="beta1", b2="beta2", eps="epsilon")(given))


# ---- The table: our class and its defaults; per reference, how it is called there, and the cases

@dataclasses.dataclass
class Group:
    reference: str
    translate: Callable
    cases: dict
    feed_decay: bool = False    # the library has no weight decay of our form


@dataclasses.dataclass
class Rule:
    defaults: dict
    groups: tuple
    parameters: int
    recorded: list


def rule(*groups, parameters=FLAT, recorded=RECORDED, **defaults):
    return Rule(defaults, groups, parameters, recorded)


def of(optimizer, /, **arguments):
    return dict(optimizer=optimizer, arguments=arguments)


A = dict(lr=0.03, beta1=0.8, beta2=0.95)
BIG = dict(epsilon=1e-2)
DECAY = dict(weight_decay=0.1)
CHANGING = dict(lr=varying(0.05))
FEW = list(range(1, 21))     # for rules that multiply a difference in the last bit many times over in every step
A_MIX = of("Adam", **A, **BIG)
S_MIX = of("SGD", lr=0.03, momentum=0.8)

TABLE = {
    "SGD": rule(
        Group("torch.optim.SGD", SGD, {
            "plain": dict(lr=0.03),
            "weight-decay": dict(lr=0.03) | DECAY,
            "momentum": dict(lr=0.03, momentum=0.8),
            "dampening": dict(lr=0.03, momentum=0.8, dampening=0.3) | DECAY,
            "nesterov": dict(lr=0.03, momentum=0.8, nesterov=True) | DECAY,
            "schedule": dict(momentum=0.8, dampening=0.3) | CHANGING,
        }),
        lr=0.01, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0),
    "Momentum": rule(
        Group("keras.optimizers.SGD", to(learning_rate="lr", momentum="beta", nesterov="nesterov"), {
            "plain": dict(lr=0.03, beta=0.8),
            "weight-decay": dict(lr=0.03, beta=0.8) | DECAY,
            "nesterov": dict(lr=0.03, beta=0.8, nesterov=True),
            "schedule": dict(beta=0.8) | CHANGING,
            "nesterov-schedule": dict(beta=0.8, nesterov=True) | DECAY | CHANGING,
        }, feed_decay=True),
        lr=0.01, beta=0.9, nesterov=False, weight_decay=0.0),
    "RMSProp": rule(
        Group("optax.rmsprop", optax_rmsprop, {
            "default-epsilon": dict(lr=0.03, beta=0.8),
            "epsilon": dict(lr=0.03, beta=0.8) | BIG,
            "momentum": dict(lr=0.03, beta=0.8, momentum=0.7) | BIG | DECAY,
            "centered": dict(lr=0.03, beta=0.8, centered=True, momentum=0.7) | BIG,
            "schedule": dict(beta=0.8) | BIG | CHANGING,
        }, feed_decay=True),
        # optax.rmsprop and keras keep lr inside the momentum buffer; our rule, as torch, outside.
        Group("optax.chain(scale_by_rms, trace, scale_by_learning_rate)",
              to(learning_rate="lr", decay="beta", eps="epsilon", momentum="momentum"), {
            "momentum-schedule": dict(beta=0.8, momentum=0.7) | BIG | CHANGING,
        }),
        Group("keras.optimizers.RMSprop", to(learning_rate="lr", rho="beta", epsilon="epsilon", momentum="momentum",
                                             centered="centered"), {
            "keras": dict(lr=0.03, beta=0.8, momentum=0.7, centered=True) | BIG | DECAY,
        }, feed_decay=True),
        Group("torch.optim.RMSprop", to(lr="lr", alpha="beta", eps="epsilon", weight_decay="weight_decay",
                                        momentum="momentum", centered="centered", foreach=False), {
            "outside-default-epsilon": dict(lr=0.03, beta=0.8, epsilon_inside=False),
            "outside": dict(lr=0.03, beta=0.8, epsilon_inside=False) | BIG | DECAY,
            "outside-momentum-schedule": dict(beta=0.8, epsilon_inside=False, momentum=0.7) | BIG | CHANGING,
            "outside-centered": dict(lr=0.03, beta=0.8, epsilon_inside=False, momentum=0.7, centered=True) | BIG
            | DECAY,
        }),
        lr=0.01, beta=0.9, epsilon=1e-10, weight_decay=0.0, epsilon_inside=True, momentum=0.0, centered=False),
    "Adagrad": rule(
        Group("torch.optim.Adagrad", to(lr="lr", eps="epsilon", weight_decay="weight_decay", lr_decay="lr_decay",
                                        initial_accumulator_value="initial_accumulator", foreach=False), {
            "default-epsilon": dict(lr=0.3),
            "epsilon": dict(lr=0.3, lr_decay=0.05) | BIG,
            "weight-decay": dict(lr=0.3, initial_accumulator=0.1) | BIG | DECAY,
            "schedule": dict(lr_decay=0.05, initial_accumulator=0.1) | BIG | CHANGING,
        }),
        lr=0.01, epsilon=1e-10, weight_decay=0.0, lr_decay=0.0, initial_accumulator=0.0),
    "Adadelta": rule(
        Group("torch.optim.Adadelta", to(lr="lr", rho="rho", eps="epsilon",
                                         weight_decay="weight_decay", foreach=False), {
            "default-epsilon": dict(lr=0.7, rho=0.8),
            "epsilon": dict(lr=0.7, rho=0.8) | BIG,
            "weight-decay": dict(lr=0.7, rho=0.8) | BIG | DECAY,
            "schedule": dict(rho=0.8) | BIG | CHANGING,
        }),
        lr=1.0, rho=0.9, epsilon=1e-6, weight_decay=0.0),
    "Adam": rule(
        Group("torch.optim.Adam", ADAM, {
            "default-epsilon": A,
            "epsilon": A | BIG,
            "weight-decay": A | BIG | DECAY,
            "amsgrad": A | BIG | DECAY | dict(amsgrad=True),
            "schedule": A | BIG | CHANGING,
        }),
        lr=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0, amsgrad=False),
    "AdamW": rule(
        Group("torch.optim.AdamW", ADAM, {
            "default-epsilon": A,
            "epsilon": A | BIG | dict(weight_decay=0.0),
            "weight-decay": A | BIG | dict(weight_decay=0.3),
            "amsgrad": A | BIG | DECAY | dict(amsgrad=True),
            "schedule": A | BIG | CHANGING | DECAY,
        }),
        lr=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.01, amsgrad=False),
    "Adamax": rule(
        Group("torch.optim.Adamax", to(lr="lr", betas=BETAS, eps="epsilon",
                                       weight_decay="weight_decay", foreach=False), {
            "default-epsilon": A,
            "epsilon": A | BIG,
            "weight-decay": A | BIG | DECAY,
            "schedule": A | BIG | CHANGING,
        }),
        lr=0.002, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0),
    "NAdam": rule(
        Group("torch.optim.NAdam", to(lr="lr", betas=BETAS, eps="epsilon", weight_decay="weight_decay",
                                      momentum_decay="momentum_decay", foreach=False), {
            "default-epsilon": A,
            "epsilon": A | BIG | dict(momentum_decay=0.05),
            "weight-decay": A | BIG | DECAY,
            "schedule": A | BIG | CHANGING,
        }),
        Group("keras.optimizers.Nadam", to(learning_rate="lr", beta_1="beta1", beta_2="beta2", epsilon="epsilon"), {
            "keras": A | BIG | dict(momentum_decay=1.0),
        }),
        lr=0.002, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0, momentum_decay=0.004),
    "RAdam": rule(
        Group("torch.optim.RAdam", to(lr="lr", betas=BETAS, eps="epsilon",
                                      weight_decay="weight_decay", foreach=False), {
            "default-epsilon": A,
            "epsilon": A | BIG,
            "weight-decay": A | BIG | DECAY,
            "never-rectified": A | dict(beta2=0.6) | BIG,
            "schedule": A | dict(beta2=0.99) | BIG | CHANGING,
        }),
        lr=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0),
    "AdaBelief": rule(
        Group("optax.adabelief", to(learning_rate="lr", b1="beta1", b2="beta2", eps="epsilon",
                                    eps_root="epsilon_root"), {
            "default-epsilon": A,
            "epsilon": A | BIG,
            "epsilon-root": A | dict(epsilon_root=1e-2),
            "weight-decay": A | BIG | DECAY,
            "schedule": A | BIG | CHANGING,
        }, feed_decay=True),
        lr=0.001, beta1=0.9, beta2=0.999, epsilon=1e-16, weight_decay=0.0, epsilon_root=1e-16),
    "Yogi": rule(
        Group("optax.yogi", to(learning_rate="lr", b1="beta1", b2="beta2", eps="epsilon"), {
            "default-epsilon": A,
            "epsilon": A | BIG,
            "weight-decay": A | BIG | DECAY,
            "schedule": A | BIG | CHANGING,
        }, feed_decay=True),
        Group("optax.chain(scale_by_yogi, scale_by_learning_rate)",
              to(learning_rate="lr", b1="beta1", b2="beta2", eps="epsilon",
                 initial_accumulator_value="initial_accumulator"), {
            "initial-accumulator": A | BIG | dict(initial_accumulator=0.1),
        }),
        lr=0.01, beta1=0.9, beta2=0.999, epsilon=1e-3, weight_decay=0.0, initial_accumulator=1e-6),
    "Lion": rule(
        Group("optax.lion", to(learning_rate="lr", b1="beta1", b2="beta2", weight_decay="weight_decay"), {
            "default-decay": A,
            "no-decay": A | dict(weight_decay=0.0),
            "schedule": A | DECAY | CHANGING,
        }),
        lr=0.0001, beta1=0.9, beta2=0.99, weight_decay=0.001),
    "SignSGD": rule(
        Group("optax.sign_sgd", to(learning_rate="lr"), {
            "plain": dict(lr=0.03),
            "schedule": CHANGING,
        }),
        lr=0.001),
    "Signum": rule(
        Group("optax.chain(ema, scale_by_sign, scale_by_learning_rate)", to(learning_rate="lr", decay="beta"), {
            "plain": dict(lr=0.03, beta=0.8),
            "schedule": dict(beta=0.8) | CHANGING,
        }),
        lr=0.001, beta=0.9),
    "LAMB": rule(
        Group("optax.lamb", to(learning_rate="lr", b1="beta1", b2="beta2", eps="epsilon",
                               weight_decay="weight_decay"), {
            "default-epsilon": A,
            "epsilon": A | BIG,
            "weight-decay": A | BIG | DECAY,
            "schedule": A | BIG | DECAY | CHANGING,
        }),
        parameters=NORMS, lr=0.001, beta1=0.9, beta2=0.999, epsilon=1e-6, weight_decay=0.0),
    "LARS": rule(
        Group("optax.lars", to(learning_rate="lr", weight_decay="weight_decay", trust_coefficient="trust_coefficient",
                               eps="epsilon", momentum="momentum", nesterov="nesterov"), {
            "default-epsilon": dict(lr=0.3, momentum=0.8),
            "epsilon": dict(lr=0.3, momentum=0.8, trust_coefficient=0.02) | BIG,
            "weight-decay": dict(lr=0.3, momentum=0.8, trust_coefficient=0.02) | DECAY,
            "nesterov-schedule": dict(momentum=0.8, trust_coefficient=0.02, nesterov=True) | BIG | DECAY | CHANGING,
        }),
        parameters=NORMS, lr=0.1, momentum=0.9, weight_decay=0.0, trust_coefficient=0.001, epsilon=0.0, nesterov=False),
    "Adafactor": rule(
        Group("torch.optim.Adafactor", to(lr="lr", beta2_decay="beta2_decay", eps=("epsilon1", "epsilon2"),
                                          d="clip_threshold", weight_decay="weight_decay", foreach=False), {
            "default-epsilon": dict(lr=0.3, beta2_decay=-0.6),
            "epsilon1": dict(lr=0.3, epsilon1=0.9),
            "epsilon2": dict(lr=0.3, epsilon2=0.5, clip_threshold=1.5),
            "weight-decay": dict(lr=0.3, epsilon1=1e-2, epsilon2=1e-2) | DECAY,
            "schedule": dict(epsilon1=1e-2) | DECAY | CHANGING,
        }),
        parameters=AXES,
        lr=0.01, beta2_decay=-0.8, epsilon1=None, epsilon2=1e-3, clip_threshold=1.0, weight_decay=0.0),
    "Rprop": rule(
        Group("torch.optim.Rprop", to(lr="lr", etas=("eta_minus", "eta_plus"), step_sizes=("step_min", "step_max"),
                                      foreach=False), {
            "plain": dict(lr=0.03, eta_minus=0.4, eta_plus=1.3),
            "limits": dict(lr=0.03, eta_minus=0.4, eta_plus=1.3, step_min=0.01, step_max=0.05),
            "clamped-at-once": dict(lr=0.03, step_max=0.02),
        }),
        lr=0.01, eta_minus=0.5, eta_plus=1.2, step_min=1e-6, step_max=50.0),
    "ASGD": rule(
        Group("torch.optim.ASGD", to(lr="lr", lambd="lambd", alpha="alpha", t0="t0", weight_decay="weight_decay",
                                     foreach=False), {
            "not-yet-averaging": dict(lr=0.03, lambd=0.05, alpha=0.6),
            "averaging": dict(lr=0.03, lambd=0.05, alpha=0.6, t0=5),
            "weight-decay": dict(lr=0.03, lambd=0.05, t0=0.5) | DECAY,
        }),
        lr=0.01, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0.0),
    "Muon": rule(
        Group("optax.contrib.muon", muon, {
            "nesterov": dict(lr=0.03, beta=0.8),
            "plain": dict(lr=0.03, beta=0.8, nesterov=False),
            "weight-decay": dict(lr=0.03, beta=0.8) | DECAY,
            "schedule": dict(beta=0.8, steps=3) | DECAY | CHANGING,
        }),
        parameters=AXES, lr=0.02, beta=0.95, nesterov=True, weight_decay=0.0, steps=5),
    "ScheduleFreeSGD": rule(
        Group("optax.contrib.schedule_free_sgd", to(learning_rate="lr", b1="beta", weight_decay="weight_decay"), {
            "plain": dict(lr=0.03, beta=0.8),
            "weight-decay": dict(lr=0.03, beta=0.8) | DECAY,
            "schedule": dict(beta=0.8) | DECAY | CHANGING,
        }),
        lr=1.0, beta=0.9, weight_decay=0.0),
    "ScheduleFreeAdamW": rule(
        Group("optax.contrib.schedule_free_adamw", to(learning_rate="lr", b1="beta1", b2="beta2", eps="epsilon",
                                                      weight_decay="weight_decay"), {
            "default-epsilon": A,
            "epsilon": A | BIG,
            "weight-decay": A | BIG | DECAY,
            "schedule": A | BIG | DECAY | CHANGING,
        }),
        lr=0.0025, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0),
    "DoG": rule(
        Group("optax.contrib.dog", lambda a: dict(learning_rate=a["lr"], init_step=("heuristic", a["initial_distance"]),
                                                  eps=a["epsilon"], weight_decay=a["weight_decay"]), {
            "default-epsilon": dict(lr=0.8, initial_distance=0.03),
            "epsilon": dict(lr=0.8, initial_distance=0.03) | BIG,
            "weight-decay": dict(lr=0.8, initial_distance=0.03, epsilon=10.0) | DECAY,
            "schedule": dict(initial_distance=0.1, lr=varying(1.5)) | BIG,
            "default-distance": dict(problem="quadratic", lr=1.2),
        }),
        lr=1.0, epsilon=1e-8, weight_decay=0.0, initial_distance=1e-6),
    "Prodigy": rule(
        Group("optax.contrib.prodigy", to(learning_rate="lr", betas=BETAS, eps="epsilon", weight_decay="weight_decay",
                                          estim_lr0="initial_distance"), {
            "default-epsilon": A | dict(lr=0.8, initial_distance=0.03),
            "epsilon": A | dict(lr=0.8, initial_distance=0.03) | BIG,
            "weight-decay": A | dict(lr=0.8, initial_distance=0.03) | BIG | DECAY,
            "schedule": A | dict(initial_distance=0.03, lr=varying(1.5)) | BIG | DECAY,
            "default-distance": A | dict(problem="quadratic", lr=0.7),
        }),
        lr=1.0, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0, initial_distance=1e-6),
    "PolyakSGD": rule(
        Group("optax.polyak_sgd", to(max_learning_rate="max_lr", f_min="minimum"), {
            "quadratic": dict(problem="quadratic", max_lr=0.08, minimum=Problem("quadratic").minimum()),
            "rosenbrock": dict(problem="rosenbrock", max_lr=2e-3),
            "mlp": dict(problem="mlp", minimum=0.1),
        }),
        recorded=FEW, max_lr=1.0, minimum=0.0),
    "LBFGS": rule(
        Group("torch.optim.LBFGS", to(lr="lr", history_size="history", line_search_fn="line_search", max_iter="steps",
                                      tolerance_grad="tolerance_gradient", tolerance_change="tolerance_change"), {
            "quadratic": dict(problem="quadratic", lr=0.9, history=3, steps=1),
            "quadratic-no-search": dict(problem="quadratic", lr=0.3, history=3, line_search=None, steps=4),
            "rosenbrock": dict(problem="rosenbrock", lr=0.9, history=2, steps=4),
            "quadratic-gradient-tolerance": dict(problem="quadratic", tolerance_gradient=1e-1, tolerance_change=0.0),
            "rosenbrock-short": dict(problem="rosenbrock", lr=0.05, history=2, steps=3),
            "rosenbrock-long": dict(problem="rosenbrock", lr=5.0, history=3),
            "rosenbrock-change-tolerance": dict(problem="rosenbrock", lr=0.5, steps=5, tolerance_change=0.05),
            "mlp": dict(problem="mlp", lr=0.9, history=3, steps=3),
            "mlp-no-search": dict(problem="mlp", lr=0.3, line_search=None, steps=3),
            "mlp-tolerance": dict(problem="mlp", tolerance_gradient=1e-2, tolerance_change=2e-2),
        }),
        recorded=FEW, lr=1.0, history=100, line_search="strong_wolfe", steps=20, tolerance_gradient=1e-7,
        tolerance_change=1e-9),
    "Clip": rule(
        Group("torch.nn.utils.clip_grad_value_, clip_grad_norm_", clip, {
            "norm": dict(optimizer=S_MIX, norm=4.0),
            "value": dict(optimizer=S_MIX, value=0.7),
            "both": dict(optimizer=of("Adam", **A, **BIG, **DECAY), norm=2.5, value=1.5),
        }),
        norm=None, value=None),
    "Accumulate": rule(
        Group("torch, gradients / steps added up", lambda a: inside(a, steps=a["steps"]), {
            "adam": dict(optimizer=A_MIX, steps=3),
            "sgd": dict(optimizer=S_MIX, steps=4),
        })),
    "Average": rule(
        Group("torch.optim.swa_utils.AveragedModel", lambda a: inside(a, decay=a["decay"]), {
            "adam": dict(optimizer=A_MIX, decay=0.9),
            "around-clip": dict(optimizer=of("Clip", optimizer=S_MIX, norm=4.0), decay=0.7),
        })),
    "Lookahead": rule(
        Group("optax.lookahead", lambda a: in_optax(a, sync_period=a["steps"], slow_step_size=a["alpha"]), {
            "adam": dict(optimizer=A_MIX),
            "sgd": dict(optimizer=S_MIX, steps=3, alpha=0.7),
        }),
        steps=5, alpha=0.5),
    "SAM": rule(
        Group("optax.contrib.sam", lambda a: in_optax(a, rho=a["rho"]), {
            "quadratic": dict(problem="quadratic", optimizer=of("SGD", lr=0.03, momentum=0.8), rho=0.2),
            "mlp": dict(problem="mlp", optimizer=of("SGD", lr=0.1, momentum=0.8, nesterov=True)),
            "mlp-adam": dict(problem="mlp", optimizer=A_MIX, rho=0.1),
        }),
        rho=0.05),
}


# ---- The files


def run_case(reference, arguments, recorded, lr, decay, start, problem):
    step = RUNNERS[reference.split(".")[0].split(",")[0]](reference, arguments, start, problem)
    path, evaluations, losses, now = [], [], [], start
    gradients = [] if problem else stream()[: len(start)]
    for t in range(recorded[-1]):
        value = None
        if problem:
            value, fed = problem(now)
            losses.append(value)
        else:
            fed = [g[t] + decay * p for g, p in zip(gradients, now, strict=True)]
        now, evaluation = step(fed, None if lr is None else float(lr[t]), value)
        assert all(p.dtype == np.float64 and np.isfinite(p).all() for p in now), (reference, t)
        if t + 1 in recorded:
            path.append(now)
            evaluations.append(evaluation)
    return path, evaluations, losses


def make(name):
    cases, arrays = [], {}
    recorded = TABLE[name].recorded
    for group in TABLE[name].groups:
        library = group.reference.split(".")[0].split(",")[0]
        for case, arguments in group.cases.items():
            arguments = copy.deepcopy(arguments)
            problem = Problem(arguments.pop("problem")) if "problem" in arguments else None
            start = problem.start if problem else starts()[: TABLE[name].parameters]
            lr = None
            if isinstance(arguments.get("lr"), np.ndarray):
                lr = arrays[f"{case}/lr"] = arguments["lr"]
                arguments["lr"] = float(lr[0])
            ours = TABLE[name].defaults | arguments
            theirs = group.translate(ours)
            decay = ours.get("weight_decay", 0.0) if group.feed_decay else 0.0
            about = dict(id=case, optimizer=name, arguments=arguments, library=library, version=LIBRARIES[library],
                         reference=group.reference, reference_arguments=theirs, parameters=len(start))
            if decay:
                about["fed_weight_decay"] = decay
            if lr is not None:
                about["scheduled"] = ["lr"]
            if problem:
                about["problem"] = {"kind": problem.kind}
                arrays |= {f"problem/{problem.kind}/{key}": a for key, a in problem.arrays.items()}
            if name == "LBFGS":
                path, losses, arrays[f"{case}/evaluations"] = run_lbfgs(theirs, problem, len(recorded))
                evaluations = [None]
            else:
                path, evaluations, losses = run_case(group.reference, theirs, recorded, lr, decay, start, problem)
            if problem:
                arrays[f"{case}/loss"] = np.array(losses)
            for k in range(len(start)):
                arrays[f"{case}/{k}/start"] = start[k]
                arrays[f"{case}/{k}/steps"] = np.array([now[k] for now in path])
                if evaluations[0] is not None:
                    arrays[f"{case}/{k}/evaluation"] = np.array([now[k] for now in evaluations])
            cases.append(about)
    first = {key: cases[0][key] for key in ("library", "version", "reference")}
    about = first | {"script": "make_optimizers.py", "cases": cases}
    arrays |= {"about": np.array(json.dumps(about)), "recorded": np.array(recorded)}
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
    print(f"{name}: {len(cases)} cases, {(FOLDER / f'{name}.npz').stat().st_size / 1e3:.1f} kB", flush=True)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "gradients.npz", **{str(k): g for k, g in enumerate(stream())})
    for name in sys.argv[1:] or TABLE:
        make(name)
