"""Make schedules.npz: the values of every schedule, step by step, from the library whose schedule it equals.

    pip install torch==2.13.0 jax==0.10.2 optax==0.2.8 keras==3.15.1
    python tests/reference/make_schedules.py

The tests read it with NumPy alone. In the file:

    about           JSON: library, version and reference of each case, script, and "cases", a list in which each holds
                    id, schedule and arguments (ours; a schedule within is {"schedule", "arguments"} again), library,
                    version, reference and reference_arguments (theirs), tolerance (how far ours may be off, relative
                    to the largest value: Keras' cosine is one of float32); and "plateaus", whose arguments are those of
                    ReduceOnPlateau
    {id}/values     the value for each step, the first one's at 0. torch's schedulers are stepped once after each step
                    of an optimizer, and the value is what that optimizer had at the step
    {id}/metrics    of a plateau: the number watched, by epoch
    {id}/lr         of a plateau: the learning rate after that epoch; the one before the first is about's "lr"

Everything is float64. "formula" as the reference: no library has the schedule; torch LambdaLR was given its formula.
"""

import json
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_enable_x64", True)

import keras
import numpy as np
import optax
import torch
from torch.optim import lr_scheduler

keras.backend.set_floatx("float64")
torch.set_default_dtype(torch.float64)

VERSIONS = {"torch": torch.__version__.split("+")[0], "optax": optax.__version__, "keras": keras.__version__}
STEPS = 120
CASES, ARRAYS = [], {}


def ours(schedule, *arguments):
    names = ARGUMENTS[schedule]
    return {"schedule": schedule, "arguments": dict(zip(names, arguments, strict=False))}


ARGUMENTS = {
    "Constant": ["value"],
    "Step": ["initial", "step_size", "gamma"],
    "MultiStep": ["initial", "milestones", "gamma"],
    "Exponential": ["initial", "gamma", "steps"],
    "InverseTime": ["initial", "decay_rate", "steps", "power"],
    "Polynomial": ["initial", "final", "steps", "power"],
    "Linear": ["initial", "final", "steps"],
    "Cosine": ["initial", "final", "steps"],
    "CosineRestarts": ["initial", "final", "steps", "t_mult", "m_mult"],
    "OneCycle": ["peak", "steps", "pct_start", "anneal_strategy", "div_factor", "final_div_factor", "three_phase"],
    "Cyclic": ["base", "peak", "step_size_up", "step_size_down", "mode", "gamma"],
    "Warmup": ["schedule", "steps", "initial"],
    "Noam": ["d_model", "warmup_steps", "factor"],
    "Join": ["schedules", "boundaries"],
}


def case(name, schedule, library, reference, reference_arguments, values):
    entry = {"id": name, **schedule, "library": library, "version": VERSIONS[library], "reference": reference}
    # Keras has pi in float32, whatever its floatx.
    entry["tolerance"] = 2e-7 if library == "keras" and "Cosine" in reference else 1e-12
    assert name not in [each["id"] for each in CASES], name
    CASES.append({**entry, "reference_arguments": reference_arguments})
    values = np.array(values, np.float64)
    assert np.isfinite(values).all(), name
    ARRAYS[f"{name}/values"] = values


# ---- The three libraries


def torch_values(make, lr, steps, what="lr"):
    """What an optimizer has at each step while `make(optimizer)` drives it."""
    w = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([w], lr=lr, momentum=0.5)
    scheduler = make(optimizer)
    values = []
    for step in range(steps):
        values.append(optimizer.param_groups[0][what])
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()
    return values


def of_torch(name, schedule, cls, lr, steps=STEPS, what="lr", **arguments):
    values = torch_values(lambda optimizer: getattr(lr_scheduler, cls)(optimizer, **arguments), lr, steps, what)
    case(name, schedule, "torch", f"torch.optim.lr_scheduler.{cls}", {"lr": lr, **arguments}, values)


def over_steps(schedule_fn):
    return np.broadcast_to(schedule_fn(np.arange(STEPS)), STEPS)  # all at once: one by one takes a minute


def of_optax(name, schedule, function, **arguments):
    schedule_fn = getattr(optax, function)(**arguments)
    arguments = {key: value if np.isscalar(value) else str(value) for key, value in arguments.items()}
    case(name, schedule, "optax", f"optax.{function}", arguments, over_steps(schedule_fn))


def of_keras(name, schedule, cls, **arguments):
    schedule_fn = getattr(keras.optimizers.schedules, cls)(**arguments)
    reference = f"keras.optimizers.schedules.{cls}"
    case(name, schedule, "keras", reference, arguments, [float(schedule_fn(step)) for step in range(STEPS)])


# ---- Every schedule


def flat_and_stairs():
    of_optax("constant", ours("Constant", 0.3), "constant_schedule", value=0.3)
    of_torch("step", ours("Step", 0.3, 7, 0.6), "StepLR", 0.3, step_size=7, gamma=0.6)
    of_torch("step_default", ours("Step", 0.3, 30), "StepLR", 0.3, step_size=30)
    of_keras("step_keras", ours("Step", 0.3, 9, 0.7), "ExponentialDecay", initial_learning_rate=0.3, decay_steps=9,
             decay_rate=0.7, staircase=True)
    of_torch("multistep", ours("MultiStep", 0.3, [5, 6, 40], 0.6), "MultiStepLR", 0.3, milestones=[5, 6, 40], gamma=0.6)
    of_optax("multistep_optax", ours("MultiStep", 0.3, [5, 6, 40]), "piecewise_constant_schedule", init_value=0.3,
             boundaries_and_scales={5: 0.1, 6: 0.1, 40: 0.1})


def falling():
    of_torch("exponential", ours("Exponential", 0.3, 0.95), "ExponentialLR", 0.3, gamma=0.95)
    of_optax("exponential_optax", ours("Exponential", 0.3, 0.5, 13), "exponential_decay", init_value=0.3,
             transition_steps=13, decay_rate=0.5)
    of_optax("exponential_growing", ours("Exponential", 1e-4, 10.0, 25), "exponential_decay", init_value=1e-4,
             transition_steps=25, decay_rate=10.0)
    of_keras("exponential_keras", ours("Exponential", 0.3, 0.7, 9), "ExponentialDecay", initial_learning_rate=0.3,
             decay_steps=9, decay_rate=0.7)
    of_keras("inverse_time", ours("InverseTime", 0.3, 0.5, 7), "InverseTimeDecay", initial_learning_rate=0.3,
             decay_steps=7, decay_rate=0.5)
    of_keras("inverse_time_each", ours("InverseTime", 0.3, 0.1), "InverseTimeDecay", initial_learning_rate=0.3,
             decay_steps=1, decay_rate=0.1)

    def root(t):
        return 1 / (1 + 0.2 * t / 3) ** 0.5

    values = torch_values(lambda optimizer: lr_scheduler.LambdaLR(optimizer, root), 0.3, STEPS)
    case("inverse_time_root", ours("InverseTime", 0.3, 0.2, 3, 0.5), "torch", "formula",
         {"lr": 0.3, "lr_lambda": "1 / (1 + 0.2 * t / 3) ** 0.5"}, values)


def to_an_end():
    of_torch("polynomial", ours("Polynomial", 0.3, 0.0, 80, 2.0), "PolynomialLR", 0.3, total_iters=80, power=2.0)
    of_optax("polynomial_optax", ours("Polynomial", 0.3, 0.01, 80, 0.7), "polynomial_schedule", init_value=0.3,
             end_value=0.01, power=0.7, transition_steps=80)
    of_optax("polynomial_rising", ours("Polynomial", 0.5, 0.9, 80, 3.0), "polynomial_schedule", init_value=0.5,
             end_value=0.9, power=3.0, transition_steps=80)
    of_keras("polynomial_keras", ours("Polynomial", 0.3, 1e-4, 80, 1.5), "PolynomialDecay", initial_learning_rate=0.3,
             decay_steps=80, end_learning_rate=1e-4, power=1.5)
    of_torch("linear", ours("Linear", 0.1, 0.3, 50), "LinearLR", 0.3, start_factor=1 / 3, end_factor=1.0,
             total_iters=50)
    of_optax("linear_optax", ours("Linear", 0.3, 0.02, 70), "linear_schedule", init_value=0.3, end_value=0.02,
             transition_steps=70)
    of_torch("cosine", ours("Cosine", 0.3, 0.01, 80), "CosineAnnealingLR", 0.3, steps=81, T_max=80, eta_min=0.01)
    of_optax("cosine_optax", ours("Cosine", 0.3, 0.03, 80), "cosine_decay_schedule", init_value=0.3, decay_steps=80,
             alpha=0.1)
    of_keras("cosine_keras", ours("Cosine", 0.3, 0.03, 80), "CosineDecay", initial_learning_rate=0.3, decay_steps=80,
             alpha=0.1)


def in_cycles():
    of_torch("restarts", ours("CosineRestarts", 0.3, 0.01, 15), "CosineAnnealingWarmRestarts", 0.3, T_0=15,
             eta_min=0.01)
    of_torch("restarts_longer", ours("CosineRestarts", 0.3, 0.0, 11, 2.0), "CosineAnnealingWarmRestarts", 0.3, T_0=11,
             T_mult=2)
    of_keras("restarts_keras", ours("CosineRestarts", 0.3, 0.03, 10, 1.5, 0.8), "CosineDecayRestarts",
             initial_learning_rate=0.3, first_decay_steps=10, t_mul=1.5, m_mul=0.8, alpha=0.1)
    of_keras("restarts_lower", ours("CosineRestarts", 0.3, 0.0, 16, 1.0, 0.5), "CosineDecayRestarts",
             initial_learning_rate=0.3, first_decay_steps=16, t_mul=1.0, m_mul=0.5)
    lengths = [16, 24, 36, 54]  # an end of 0.03 as a share of each peak
    each = [optax.cosine_decay_schedule(0.03 + 0.27 * 0.8**k, length, 0.03 / (0.03 + 0.27 * 0.8**k))
            for k, length in enumerate(lengths)]
    joined = optax.join_schedules(each, [16, 40, 76])
    case("restarts_optax", ours("CosineRestarts", 0.3, 0.03, 16, 1.5, 0.8), "optax", "optax.join_schedules",
         {"schedules": "cosine_decay from 0.03 + 0.27 * 0.8**k to 0.03", "lengths": lengths}, over_steps(joined))
    for anneal in ("cos", "linear"):
        for three in (False, True):
            cycle = ours("OneCycle", 0.3, 100, 0.27, anneal, 10.0, 1e3, three)
            of_torch(f"one_cycle_{anneal}{'_three' * three}", cycle, "OneCycleLR", 0.1, 100, max_lr=0.3,
                     total_steps=100, pct_start=0.27, anneal_strategy=anneal,
                     div_factor=10.0, final_div_factor=1e3, three_phase=three)
    of_torch("one_cycle_default", ours("OneCycle", 0.3, 90), "OneCycleLR", 0.1, 90, max_lr=0.3, total_steps=90)
    of_torch("one_cycle_momentum", ours("OneCycle", 0.85, 90, 0.3, "cos", 0.85 / 0.95, 1.0), "OneCycleLR", 0.1, 90,
             "momentum", max_lr=0.3, total_steps=90)
    for mode in ("triangular", "triangular2", "exp_range"):
        of_torch(f"cyclic_{mode}", ours("Cyclic", 0.01, 0.3, 7, 12, mode, 0.98), "CyclicLR", 0.1, base_lr=0.01,
                 max_lr=0.3, step_size_up=7, step_size_down=12, mode=mode, gamma=0.98)
    of_torch("cyclic_even", ours("Cyclic", 0.01, 0.3, 10), "CyclicLR", 0.1, base_lr=0.01, max_lr=0.3, step_size_up=10)
    of_torch("cyclic_momentum", ours("Cyclic", 0.9, 0.8, 7, 12), "CyclicLR", 0.1, what="momentum", base_lr=0.01,
             max_lr=0.3, step_size_up=7, step_size_down=12)


def nested():
    of_optax("warmup_cosine", ours("Warmup", ours("Cosine", 0.3, 0.01, 70), 20, 0.05), "warmup_cosine_decay_schedule",
             init_value=0.05, peak_value=0.3, warmup_steps=20, decay_steps=90, end_value=0.01)
    of_keras("warmup_cosine_keras", ours("Warmup", ours("Cosine", 0.3, 0.03, 70), 20), "CosineDecay",
             initial_learning_rate=0.0, decay_steps=70, alpha=0.1, warmup_target=0.3, warmup_steps=20)
    of_optax("warmup_number", ours("Warmup", 0.3, 20), "warmup_constant_schedule", init_value=0.0, peak_value=0.3,
             warmup_steps=20)

    def linear_then(optimizer):
        first = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=20)
        return lr_scheduler.SequentialLR(optimizer, [first, lr_scheduler.ExponentialLR(optimizer, 0.97)], [20])

    case("warmup_torch", ours("Warmup", ours("Exponential", 0.3, 0.97), 20, 0.03), "torch",
         "torch.optim.lr_scheduler.SequentialLR", {"lr": 0.3, "schedulers": "LinearLR(0.1, total_iters=20), "
         "ExponentialLR(0.97)", "milestones": [20]}, torch_values(linear_then, 0.3, STEPS))

    def three(optimizer):
        each = [lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=1), lr_scheduler.StepLR(optimizer, 4, 0.8),
                lr_scheduler.PolynomialLR(optimizer, 50, 2.0)]
        return lr_scheduler.SequentialLR(optimizer, each, [9, 40])

    inner = [ours("Constant", 0.3), ours("Step", 0.3, 4, 0.8), ours("Polynomial", 0.3, 0.0, 50, 2.0)]
    case("join_torch", ours("Join", inner, [9, 40]), "torch", "torch.optim.lr_scheduler.SequentialLR",
         {"lr": 0.3, "schedulers": "ConstantLR(1), StepLR(4, 0.8), PolynomialLR(50, 2)", "milestones": [9, 40]},
         torch_values(three, 0.3, STEPS))
    joined = optax.join_schedules([optax.linear_schedule(0.0, 0.3, 10), optax.constant_schedule(0.3),
                                   optax.cosine_decay_schedule(0.3, 60)], [10, 50])
    inner = [ours("Linear", 0.0, 0.3, 10), 0.3, ours("Cosine", 0.3, 0.0, 60)]
    case("join_optax", ours("Join", inner, [10, 50]), "optax", "optax.join_schedules",
         {"schedules": "linear(0, 0.3, 10), constant(0.3), cosine_decay(0.3, 60)", "boundaries": [10, 50]},
         over_steps(joined))

    def rate(t):
        return 2.0 * 64**-0.5 * min((t + 1) ** -0.5, (t + 1) * 30**-1.5)

    case("noam", ours("Noam", 64, 30, 2.0), "torch", "formula",
         {"lr": 1.0, "lr_lambda": "2 * 64**-0.5 * min(n**-0.5, n * 30**-1.5), n = t + 1"},
         torch_values(lambda optimizer: lr_scheduler.LambdaLR(optimizer, rate), 1.0, STEPS))


# ---- ReduceOnPlateau


def plateaus():
    rng = np.random.default_rng(0)
    falling = 2 * 0.9 ** np.arange(40) + 0.3 * rng.random(40)
    stairs = np.repeat([3.0, 2.0, 1.95, 1.0, 1.2], 8)
    bumpy = np.where(np.arange(40) == 20, np.nan, np.abs(rng.standard_normal(40)))
    table = [
        ("plateau_falling", falling, {"factor": 0.5, "patience": 2, "min_delta": 0.0}),
        ("plateau_stairs", stairs, {"factor": 0.1, "patience": 3, "min_delta": 0.1}),
        ("plateau_default", stairs, {}),
        ("plateau_impatient", falling, {"factor": 0.7, "patience": 0}),
        ("plateau_cooldown", stairs, {"factor": 0.5, "patience": 1, "cooldown": 4}),
        ("plateau_floor", bumpy, {"factor": 0.3, "patience": 1, "min_lr": 0.01, "cooldown": 1}),
        ("plateau_rising", -falling, {"factor": 0.5, "patience": 2, "min_delta": 0.05, "mode": "max"}),
    ]
    cases = []
    for name, metrics, arguments in table:
        theirs = {"factor": 0.1, "patience": 10, "min_delta": 1e-4, **arguments}
        theirs = {**theirs, "threshold_mode": "abs", "eps": 0.0}
        theirs["threshold"] = theirs.pop("min_delta")
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **theirs)
        rates = []
        for metric in metrics:
            scheduler.step(metric)
            rates.append(optimizer.param_groups[0]["lr"])
        assert name == "plateau_default" or rates[-1] < 0.2, name
        ARRAYS[f"{name}/metrics"], ARRAYS[f"{name}/lr"] = metrics, np.array(rates)
        cases.append({"id": name, "lr": 0.2, "arguments": arguments, "library": "torch", "version": VERSIONS["torch"],
                      "reference": "torch.optim.lr_scheduler.ReduceLROnPlateau", "reference_arguments": theirs})
    return cases


def main():
    flat_and_stairs()
    falling()
    to_an_end()
    in_cycles()
    nested()
    script = "tests/reference/make_schedules.py"
    about = {"script": script, "libraries": VERSIONS, "cases": CASES, "plateaus": plateaus()}
    path = Path(__file__).resolve().with_name("schedules.npz")
    np.savez_compressed(path, about=np.array(json.dumps(about)), **ARRAYS)


if __name__ == "__main__":
    main()
