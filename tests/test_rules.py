"""Every rule and wrapper against the golden trajectories of the library that it equals; mistakes planted and seen; and,
over the same cases, what each of them promises: blocks, float32, hard gradients, the state that its table row names.
"""

import ast
import contextlib
import functools
import inspect
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from golden import ALLOWED, COMPOSITE, NAMES, Scheduled, cases, difference, give, held, rules_within, ways

import layers
import loss
import optim
from layerwise import second_order

CASES = cases()
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "optimizers.md"
STREAMED = [case for case in CASES if case.kind is None]
SOLVED = [case for case in CASES if case.kind is not None]


def by_id(case):
    return case.id


# Each class in a row -----------------------------------------------------------------------------------------------

# What users rely on: the arguments of each class, in this order and with these defaults; and the vectors that its state
# consists of, as large as the parameters (None: it looks at shapes, or has rules within).
TABLE = {
    "SGD": ("lr=0.01, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0", []),
    "Momentum": ("lr=0.01, beta=0.9, nesterov=False, weight_decay=0.0", ["v"]),
    "SignSGD": ("lr=0.001", []),
    "Signum": ("lr=0.001, beta=0.9", ["m"]),
    "Rprop": ("lr=0.01, eta_minus=0.5, eta_plus=1.2, step_min=1e-06, step_max=50.0", ["last", "s"]),
    "ASGD": ("lr=0.01, lambd=0.0001, alpha=0.75, t0=1000000.0, weight_decay=0.0", ["a"]),
    "RMSProp": (
        "lr=0.01, beta=0.9, epsilon=1e-10, weight_decay=0.0, epsilon_inside=True, momentum=0.0, centered=False",
        ["v"],
    ),
    "Adagrad": ("lr=0.01, epsilon=1e-10, weight_decay=0.0, lr_decay=0.0, initial_accumulator=0.0", ["s"]),
    "Adadelta": ("lr=1.0, rho=0.9, epsilon=1e-06, weight_decay=0.0", ["v", "u"]),
    "Adam": ("lr=0.01, beta1=0.9, beta2=0.999, epsilon=1e-08, weight_decay=0.0, amsgrad=False", ["m", "v"]),
    "AdamW": ("lr=0.001, beta1=0.9, beta2=0.999, epsilon=1e-08, weight_decay=0.01, amsgrad=False", ["m", "v"]),
    "Adamax": ("lr=0.002, beta1=0.9, beta2=0.999, epsilon=1e-08, weight_decay=0.0", ["m", "u"]),
    "NAdam": ("lr=0.002, beta1=0.9, beta2=0.999, epsilon=1e-08, weight_decay=0.0, momentum_decay=0.004", ["m", "v"]),
    "RAdam": ("lr=0.001, beta1=0.9, beta2=0.999, epsilon=1e-08, weight_decay=0.0", ["m", "v"]),
    "AdaBelief": ("lr=0.001, beta1=0.9, beta2=0.999, epsilon=1e-16, weight_decay=0.0, epsilon_root=1e-16", ["m", "v"]),
    "Yogi": ("lr=0.01, beta1=0.9, beta2=0.999, epsilon=0.001, weight_decay=0.0, initial_accumulator=1e-06", ["m", "v"]),
    "Lion": ("lr=0.0001, beta1=0.9, beta2=0.99, weight_decay=0.001", ["m"]),
    "LAMB": ("lr=0.001, beta1=0.9, beta2=0.999, epsilon=1e-06, weight_decay=0.0", ["m", "v"]),
    "LARS": ("lr=0.1, momentum=0.9, weight_decay=0.0, trust_coefficient=0.001, epsilon=0.0, nesterov=False", ["v"]),
    "Adafactor": (
        "lr=0.01, beta2_decay=-0.8, epsilon1=None, epsilon2=0.001, clip_threshold=1.0, weight_decay=0.0",
        None,
    ),
    "Muon": ("lr=0.02, beta=0.95, nesterov=True, weight_decay=0.0, steps=5", None),
    "ScheduleFreeSGD": ("lr=1.0, beta=0.9, weight_decay=0.0", ["z"]),
    "ScheduleFreeAdamW": ("lr=0.0025, beta1=0.9, beta2=0.999, epsilon=1e-08, weight_decay=0.0", ["z", "v"]),
    "DoG": ("lr=1.0, epsilon=1e-08, weight_decay=0.0, initial_distance=1e-06", ["start_w"]),
    "Prodigy": (
        "lr=1.0, beta1=0.9, beta2=0.999, epsilon=1e-08, weight_decay=0.0, initial_distance=1e-06",
        ["start_w", "m", "v", "s"],
    ),
    "PolyakSGD": ("max_lr=1.0, minimum=0.0", []),
    "LBFGS": (
        "lr=1.0, history=100, line_search='strong_wolfe', steps=20, tolerance_gradient=1e-07, tolerance_change=1e-09",
        None,
    ),
    "Clip": ("optimizer, norm=None, value=None", []),
    "Accumulate": ("optimizer, steps", ["mean"]),
    "Average": ("optimizer, decay", ["average"]),
    "Lookahead": ("optimizer, steps=5, alpha=0.5", ["slow"]),
    "SAM": ("optimizer, rho=0.05", []),
    "PerLayer": ("optimizers", None),
}


def test_every_argument_has_its_place_and_its_default():
    assert sorted({*NAMES} - TABLE.keys()) == [], "give each a row in TABLE: its arguments, its state"
    assert sorted(TABLE.keys() - {*NAMES}) == [], "no rule is called that"
    for name, (arguments, _) in TABLE.items():
        found = inspect.signature(getattr(optim, name)).parameters.values()
        told = [each.name if each.default is each.empty else f"{each.name}={each.default!r}" for each in found]
        assert ", ".join(told) == arguments, name


# Equal to the reference ---------------------------------------------------------------------------------------


def test_every_class_has_golden_cases():
    golden = {case.name for case in CASES}
    missing = sorted({*NAMES} - {*COMPOSITE} - golden)
    assert missing == [], "write each into TABLE of make_optimizers.py and run it with that name"
    assert sorted(golden - {*NAMES}) == [], "a file in tests/reference/optimizers is of no rule"
    assert all(case.about["version"] and case.about["reference"] for case in CASES)


def test_the_table_in_the_documentation_has_every_class_and_says_that_it_is_equal():
    rows = [line.split(" | ") for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    told = [row[0].strip("| `") for row in rows]
    missing = [name for name in NAMES if name not in told]
    assert missing == [], "python benchmarks/optimizers.py --write docs/optimizers.md prints their rows"
    assert [name for name in told if name not in NAMES] == [], "docs/optimizers.md has rows of no rule"
    assert sorted(told) == NAMES, "a rule has two rows in docs/optimizers.md"
    assert all(float(row[2]) <= ALLOWED.get(row[0].strip("| `"), 1e-12) for row in rows)


def test_the_documentation_names_the_rules_whose_decay_is_not_coupled():
    """As `decay_is` on their classes says; Adafactor takes the decay itself, and shrinks the weights as well."""
    text = re.search(r"- \*\*Weight decay\*\*(.*?)\n- ", DOCUMENT.read_text(encoding="utf-8"), re.S)[1]
    shrunk, added = ([*re.findall(r"`([A-Z]\w+)`", part)] for part in text.split(";"))
    decay = {name: getattr(optim, name).decay_is for name in NAMES}
    assert sorted(shrunk) == sorted(["Adafactor", *(name for name in NAMES if decay[name] == "decoupled")])
    assert sorted(added) == [name for name in NAMES if decay[name] == "own" and name != "Adafactor"]


@pytest.mark.parametrize(
    ("case", "way"), [pytest.param(case, way, id=f"{case.id}-{way}") for case in CASES for way in ways(case)]
)
def test_equal_to_the_reference(case, way):
    assert difference(case, getattr(case, way)(case.make())) <= case.tolerance


@pytest.mark.parametrize(
    "case", [case for case in STREAMED if case.id in (f"{case.name}-epsilon", f"{case.name}-plain")], ids=by_id
)
def test_equal_to_the_reference_with_an_optimizer_for_each_parameter(case):
    """All rules take the same steps, but for those with sums over the whole net."""
    rule = optim.PerLayer({str(k): case.make() for k in range(len(case.start))})
    far = difference(case, case.by_net(rule))
    if case.name == "DoG" or case.name == "Prodigy":
        assert far > 1e-3
    else:
        assert far <= case.tolerance


@pytest.mark.parametrize("case", SOLVED, ids=by_id)
def test_the_evaluation_weights_equal_the_reference(case):
    """The value before each step; for LBFGS how often it asked, too."""
    for way in ways(case):
        for _ in getattr(case, way)(case.make()):
            pass
        if case.name == "LBFGS":
            assert case.asked == case.evaluations.tolist()
        else:
            each = 2 if case.name == "SAM" else 1
            assert case.asked == [each * (step + 1) for step in range(len(case.asked))]
        if way == "by_train":
            np.testing.assert_allclose(case.values, case.loss, rtol=1e-10)


# Mistakes, planted in the source of a rule: each must be seen -----------------------------------------------------

MISTAKES = [
    ("Adam", "corrected by 1 - beta", "(1 - beta1**t)", "(1 - beta1)"),
    ("Adam", "the second corrected by 1 - beta", "(1 - beta2**t)", "(1 - beta2)"),
    ("Adam", "epsilon outside the fraction", "(m / (np.sqrt(v) + epsilon_hat))", "(m / np.sqrt(v) + epsilon_hat)"),
    ("Adam", "the first correction twice", "lr * root / (1 - beta1**t)", "lr * root / (1 - beta1**t)**2"),
    ("Adam", "epsilon inside the root", "(np.sqrt(v) + epsilon_hat)", "np.sqrt(v + epsilon_hat)"),
    ("Adam", "epsilon before the correction", "epsilon * root", "epsilon"),
    ("Adam", "v from the mean, not from g", "(g * g)", "(m * m)"),
    ("Adam", "amsgrad keeps nothing", "out=largest", "out=None"),
    ("AdamW", "decay coupled", '"decoupled"', '"coupled"'),
    ("SGD", "dampening at the first step", "if t > 1 else 0", ""),
    ("SGD", "nesterov without its momentum", "g + momentum * b if", "g + b if"),
    ("Momentum", "lr outside the velocity", "push = lr * g", "push = g"),
    ("RMSProp", "epsilon on the other side", "if epsilon_inside else", "if not epsilon_inside else"),
    ("RMSProp", "the mean after the variance", "variance = np.maximum(v - a * a, 0)", "variance = v"),
    ("Adagrad", "epsilon inside the root", "(np.sqrt(s) + epsilon)", "np.sqrt(s + epsilon)"),
    ("Adagrad", "lr_decay a step early", "(t - 1) * lr_decay", "t * lr_decay"),
    ("Adadelta", "epsilon once", "np.sqrt(u + epsilon)", "np.sqrt(u)"),
    ("Adamax", "epsilon after the maximum", "np.abs(g) + epsilon, out=u", "np.abs(g), out=u"),
    ("NAdam", "the momentum of now for the one ahead", "(t, t + 1)", "(t, t)"),
    ("RAdam", "the paper's threshold", "rho > 5", "rho > 4"),
    ("AdaBelief", "what was foreseen by the mean of before", "surprise = g - m", "surprise = g - m / beta1"),
    ("AdaBelief", "epsilon_root once", "v += epsilon_root", ""),
    ("Yogi", "the sign the other way", "v -= (1 - beta2)", "v += (1 - beta2)"),
    ("Yogi", "m starts at zero", "m[...] = v[...] =", "v[...] ="),
    ("Lion", "betas exchanged", "beta1 * m + (1 - beta1) * g", "beta2 * m + (1 - beta2) * g"),
    ("Lion", "decay coupled", '"decoupled"', '"coupled"'),
    ("SignSGD", "no sign", "np.sign(g)", "g"),
    ("Signum", "the sign of g", "np.sign(m)", "np.sign(g)"),
    ("LAMB", "the decay left out of the ratio", "_trust(w, u) * u", "_trust(w, u - weight_decay * w) * u"),
    ("LARS", "lr outside the momentum", "u = lr * _trust", "u = _trust"),
    ("Adafactor", "the rate after the decay", "# before the decay", "/ (1 - lr * weight_decay)"),
    ("Adafactor", "the largest row for the mean", "(row.mean(-2", "(row.max(-2"),
    ("Rprop", "a step in spite of the turn", "turn >= 0, out=last", "turn > -2, out=last"),
    ("ASGD", "averages a step early", "max(1, t - 1 - t0)", "max(1, t - t0)"),
    ("ASGD", "eta a step late", "lr * (t - 1)) ** alpha", "lr * max(t - 2, 0)) ** alpha"),
    ("Muon", "no bias correction ahead", "beta ** (t + 1)", "beta ** t"),
    ("Muon", "rows for columns", "columns / rows", "rows / columns"),
    ("ScheduleFreeSGD", "the share of lr, not of its square", "largest**2 / self", "largest / self"),
    ("ScheduleFreeAdamW", "no correction", "v / c2", "v"),
    ("DoG", "the distance of before", 'max(memory["distance"], math.sqrt(far))', 'memory["distance"]'),
    ("DoG", "epsilon outside the root", 'math.sqrt(memory["sum"] + numbers["epsilon"])', 'math.sqrt(memory["sum"])'),
    ("Prodigy", "d never grows", 'max(d, memory["r"] / total)', "d"),
    ("Prodigy", "epsilon as it is", 'memory["d"] * numbers["epsilon"]', 'numbers["epsilon"]'),
    ("PolyakSGD", "the norm, not its square", '"minimum"]) / square', '"minimum"]) / math.sqrt(square)'),
    ("LBFGS", "the first step of full length", "min(1.0, 1.0 / float(np.abs(g).sum())) * lr", "lr"),
    ("LBFGS", "one pair too many", "[-(history - 1) :]", "[-history :]"),
    ("Clip", "no margin in the norm", "length + 1e-6", "length"),
    ("Clip", "the square of the norm", "length = math.sqrt(", "length = ("),
    ("Accumulate", "the sum for the mean", "mean += g / steps", "mean += g"),
    ("Average", "starts at zero", "if before else 1.0", ""),
    ("Lookahead", "slow weights left behind", "w[...] = slow", "w[...] = w"),
    ("SAM", "rho times g, no norm", "rho / length * g", "rho * g"),
]  # fmt: skip


@functools.cache
def sources():
    """Class -> (its source, the names of its module)."""
    found = {}
    for module in (optim, second_order):
        text = Path(module.__file__).read_text(encoding="utf-8")
        classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
        lines = text.split("\n")
        found |= {node.name: ("\n".join(lines[node.lineno - 1 : node.end_lineno]), vars(module)) for node in classes}
    return found


def planted(name, right, wrong):
    """The class with a mistake in its source."""
    source, names = sources()[name]
    assert source.count(right) >= 1, f"{name} does not say {right!r} any more: plant the mistake anew."
    if right.startswith("#"):
        source = source.replace("  " + right, " " + wrong)
    namespace = dict(names)
    exec(compile(source.replace(right, wrong), name, "exec"), namespace)
    return namespace[name]


def farthest(name, rule):
    """Over all cases of a class; infinite where a case fails."""
    far = []
    for case in CASES:
        if case.name == name:
            with np.errstate(all="ignore"):
                far.append(difference(case, getattr(case, ways(case)[-1])(case.make(rule))))
    return max(far)


@pytest.mark.parametrize(
    ("name", "right", "wrong"), [pytest.param(n, r, w, id=f"{n}: {what}") for n, what, r, w in MISTAKES]
)
def test_a_planted_mistake_is_noticed(name, right, wrong):
    assert farthest(name, planted(name, right, wrong)) > 1e5 * ALLOWED.get(name, 1e-12)


def test_every_rule_has_a_planted_mistake():
    planted = {name for name, *_ in MISTAKES}
    missing = sorted({*NAMES} - {*COMPOSITE} - planted)
    assert missing == [], "plant a mistake in each that its golden values must notice: a line in MISTAKES"
    assert sorted(planted - {*NAMES}) == [], "no rule is called that"


def test_counting_a_step_for_each_parameter_is_noticed():
    class EachCounts(optim.Adam):
        def _apply(self, net):
            for block in self._blocks:
                self.t += 1
                self.rule(*block, **self.numbers(self.t, lr=0.03, beta1=0.8, beta2=0.95, epsilon=1e-2, amsgrad=False))

    case = next(case for case in CASES if case.id == "Adam-epsilon")
    single = [difference(case, walk(case.make(EachCounts))) for walk in (case.by_net, case.by_step)]
    assert single[0] <= case.tolerance  # a net is one block: the override itself is right
    assert single[1] > 1e-3


@pytest.mark.parametrize("case", STREAMED, ids=by_id)
def test_one_skipped_step_is_noticed(case):
    rule = case.make()
    update, at = rule.update, 57 if case.name != "Rprop" else 8

    def skipping(net, steps=itertools.count(1)):  # noqa: B008
        if next(steps) != at:
            update(net)

    rule.update = skipping
    assert difference(case, case.by_step(rule)) > 1e-6


# In blocks, and in the segments that frozen layers leave ------------------------------------------------------------

ELEMENTWISE = [case for case in STREAMED if not any(each.whole_parameters for each in rules_within(case.make()))]
SUMMED = ("DoG", "Prodigy")  # sums over blocks round differently


@pytest.mark.parametrize("case", ELEMENTWISE, ids=by_id)
def test_blocks_change_no_bit(case, monkeypatch):
    whole = [parameters for parameters, _ in case.by_net(case.make())]
    monkeypatch.setattr("layerwise.core.blocks.BLOCK", 3)  # 13 numbers; no parameter is a multiple
    blocks = list(case.by_net(case.make()))
    if case.name in SUMMED:
        assert difference(case, blocks) <= case.tolerance
    else:
        assert bits(whole) == bits([parameters for parameters, _ in blocks])


def bits(steps):
    return [[w.tobytes() for w in parameters] for parameters in steps]


@pytest.mark.parametrize("case", STREAMED, ids=by_id)
def test_a_frozen_layer_does_not_influence_the_others(case, monkeypatch):
    """Not moved, not decayed, in no norm: the others go as they go without it."""
    monkeypatch.setattr("layerwise.core.blocks.BLOCK", 3)
    net, rule = held(case.start), case.make()
    net[1].frozen = True
    others = [k for k in range(len(case.start)) if k != 1]
    alone, other = held([case.start[k] for k in others]), case.make()
    for gradients in case.gradients()[:50]:
        give(net, gradients)
        give(alone, [gradients[k] for k in others])
        rule.update(net)
        other.update(alone)
    assert net[1].w.tobytes() == case.start[1].tobytes()
    for ours, expected in zip([net[k].w for k in others], [layer.w for layer in alone.layers], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-14)
        assert not np.array_equal(expected, case.start[0])


@pytest.mark.parametrize("case", STREAMED, ids=by_id)
def test_the_state_of_a_frozen_layer_is_kept(case):
    """Frozen for a while, and thawed: nothing of it has moved, and it goes on."""
    net, rule = held(case.start), case.make()
    states = []
    for t, gradients in enumerate(case.gradients()[:12]):
        net[1].frozen = 4 <= t < 8
        give(net, gradients)
        rule.update(net)
        states.append((net[1].w.tobytes(), state_of(rule, net, 1)))
    assert states[3] == states[4] == states[7]
    assert states[8][0] != states[7][0] or case.name == "Accumulate"
    assert states[11][0] != states[7][0]
    assert all(np.isfinite(layer.w).all() for layer in net.layers)


def state_of(rule, net, place):
    """Every state array of one parameter, as bytes."""
    p = net.layout.parameters[place]
    found = []
    for each in rules_within(rule):
        if each.whole_parameters:
            found += [a.tobytes() for a in each.state_dict()["state"][place].values()]
        else:
            found += [a[p.span].tobytes() for a in each.state_dict()["state"][0].values()]
    return found


def test_the_state_of_a_frozen_layer_misses_the_frozen_steps():
    """SGD's momentum of a layer that sat out two steps is that of a list of arrays that never saw those."""
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(5), rng.standard_normal((6, 5))
    net, rule = held([start, start]), optim.SGD(lr=0.1, momentum=0.8, weight_decay=0.1)
    for t, g in enumerate(gradients):
        net[0].frozen = t in (2, 3)
        give(net, [g, g])
        rule.update(net)
    alone, other = [start.copy()], optim.SGD(lr=0.1, momentum=0.8, weight_decay=0.1)
    for t in (0, 1, 4, 5):
        other.step(alone, [gradients[t]])
    assert net[0].w.tobytes() == alone[0].tobytes()


@pytest.mark.parametrize("make", [lambda: optim.Average(optim.SGD(lr=0.1), 0.9), lambda: optim.ASGD(lr=0.1, t0=1)])
def test_evaluation_weights_of_a_layer_thawed_late_start_at_its_weights(make):
    net, rule = held([np.full(3, 5.0), np.full(2, 5.0)]), make()
    net[0].frozen = True
    for t in range(6):
        net[0].frozen = t < 4
        give(net, [np.ones(3), np.ones(2)])
        rule.update(net)
    with rule.evaluation_weights(net):
        assert (net[0].w > 4.5).all()


def test_everything_frozen_moves_nothing():
    for case in STREAMED:
        net, rule = held(case.start), case.make()
        net.frozen = True
        give(net, case.gradients()[3])
        rule.update(net)
        assert bits([[layer.w for layer in net.layers]]) == bits([case.start])


# float32, and gradients that are hard ------------------------------------------------------------------------------

CREEPING = ("ASGD", "Yogi")  # move without a gradient, by lambd or by what m starts at, as those do that decay


@functools.cache
def defaults():
    """Name -> a maker of the class as it comes, the wrappers around Adam."""
    created = {"Clip": {"norm": 1.0}, "Accumulate": {"steps": 2}, "Average": {"decay": 0.9}}
    return {
        name: functools.partial(
            lambda kind, more: kind(optim.Adam(), **more) if issubclass(kind, optim.Wrapper) else kind(),
            getattr(optim, name),
            created.get(name, {}),
        )
        for name in NAMES
        if name not in COMPOSITE
    }


def arrays_of(rule):
    return [array for each in rules_within(rule) for state in each.state_dict()["state"] for array in state.values()]


HARD = {"zero": [0.0], "tiny": [1e-30], "huge": [1e15], "in turn": [0.0, 1e-30, 1e15, 1.0], "huge, then": [1e15, 1e-30]}


@pytest.mark.parametrize("sizes", HARD.values(), ids=HARD)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in COMPOSITE])
def test_hard_gradients_in_float32(name, sizes):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3), (4,), (2, 3, 2))]
    start.append(np.zeros(3, np.float32))
    rule = defaults()[name]()
    if rule._needs_value():
        x, signs = np.concatenate([w.ravel() for w in start]), np.sign(rng.standard_normal(25)).astype(np.float32)
        for t in range(12):
            size = np.float32(sizes[t % len(sizes)])

            def bowl(x, size=size):
                return float(size * 0.5 * (x @ x)), size * (x + 0 * signs)

            before = x
            x = optim.minimize(bowl, x, rule, 1)[1]
            assert x.dtype == np.float32
            assert np.isfinite(x).all()
            assert sizes != [0.0] or x.tobytes() == before.tobytes()
    else:
        parameters = [w.copy() for w in start]
        for t in range(12):
            rule.step(parameters, [np.sign(rng.standard_normal(w.shape)) * sizes[t % len(sizes)] for w in parameters])
        assert {w.dtype.name for w in parameters} == {"float32"}
        assert all(np.isfinite(w).all() for w in parameters)
        moved = bits([parameters]) != bits([start])
        creeps = name in CREEPING or getattr(rule, "weight_decay", 0) > 0
        assert moved == (sizes != [0.0] or creeps) or sizes == [1e-30]
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays_of(rule))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e25])
@pytest.mark.parametrize("case", STREAMED, ids=by_id)
def test_a_gradient_that_is_not_finite_is_refused_before_anything_moves(case, bad, snapshot):
    net, rule = held(case.start, "float32"), case.make()
    gradients = [[g.astype(np.float32) for g in each] for each in case.gradients()[:4]]
    for each in gradients[:3]:
        give(net, each)
        rule.update(net)
    gradients[3][2][-1] = bad
    give(net, gradients[3])
    if bad == 1e25 and "Clip" in [type(each).__name__ for each in rules_within(rule)]:
        rule.update(net)  # held in range
        assert all(np.isfinite(layer.w).all() for layer in net.layers)
        return
    before = snapshot(net, rule), [snapshot(None, each) for each in rules_within(rule)]
    with pytest.raises(FloatingPointError, match=r"not finite.*nothing was moved"):
        rule.update(net)
    assert (snapshot(net, rule), [snapshot(None, each) for each in rules_within(rule)]) == before


@pytest.mark.parametrize("case", [case for case in SOLVED if case.kind == "quadratic"], ids=by_id)
def test_a_function_that_is_not_finite_is_refused_before_anything_moves(case, snapshot):
    rule = case.make()
    x = case.start[0]
    for _ in range(3):
        x = optim.minimize(lambda x: case_value(case, x), x, rule, 1)[1]
    before, state = snapshot(None, rule), rule.state_dict()
    asked = []

    def broken(x, good=0):
        asked.append(x.copy())
        value, g = case_value(case, x)
        return (value, g) if len(asked) <= good else (math.nan, np.full_like(g, math.nan))

    for good in (0, 1):
        asked.clear()
        rule.load_state_dict(state)
        with contextlib.suppress(FloatingPointError):
            optim.minimize(functools.partial(broken, good=good), x, rule, 1)
            assert len(asked) <= good  # it never came to the bad one
            continue
        assert snapshot(None, rule) == before


def case_value(case, x):
    value, gradients = case.problem([x])
    return value, gradients[0]


def test_squares_whose_sum_overflows_are_accepted():
    w = [np.zeros(100, np.float32)]
    optim.SGD(lr=1e-18).step(w, [np.full(100, 1e19, np.float32)])
    np.testing.assert_allclose(w[0], -10.0, rtol=1e-6)


# What is remembered ---------------------------------------------------------------------------------------------

MORE = [
    (lambda: optim.SGD(momentum=0.9), ["b"]),
    (lambda: optim.SGD(momentum=Scheduled([0.0, 0.9])), ["b"]),
    (lambda: optim.RMSProp(centered=True), ["v", "a"]),
    (lambda: optim.RMSProp(momentum=0.9), ["v", "b"]),
    (lambda: optim.RMSProp(momentum=0.9, centered=True), ["v", "a", "b"]),
    (lambda: optim.Adam(amsgrad=True), ["m", "v", "largest"]),
    (lambda: optim.AdamW(amsgrad=True), ["m", "v", "largest"]),
]
SHAPES = [(2, 3), (3,), (3, 4), (4,)]


def after_two_steps(rule):
    """An optimizer that has served a small net."""
    net = layers.Model([layers.Linear(3), layers.Tanh(), layers.Linear(4)], seed=0)
    x = np.random.default_rng(0).standard_normal((5, 2))
    net.train(x, np.ones((5, 4)), optim=rule, loss=loss.MSE(), epochs=2, verbose=False)
    return net, rule


@pytest.mark.parametrize(
    ("make", "names"),
    [pytest.param(defaults()[name], names, id=name) for name, (_, names) in TABLE.items() if names is not None]
    + [pytest.param(make, names, id=repr(make())) for make, names in MORE],
)
def test_the_state_has_the_arrays_that_the_table_names(make, names):
    net, rule = after_two_steps(make())
    state = rule.state_dict()["state"]
    shapes = SHAPES if rule.whole_parameters else [net.vector.shape]
    assert [{name: a.shape for name, a in each.items()} for each in state] == [dict.fromkeys(names, s) for s in shapes]
    assert all(a.dtype == np.float32 for each in state for a in each.values())


def test_the_state_of_rules_that_depend_on_shapes():
    of_shapes = {name for name, (_, names) in TABLE.items() if names is None}
    assert of_shapes == {"Adafactor", "Muon", "LBFGS", *COMPOSITE}
    state = after_two_steps(optim.Adafactor())[1].state_dict()["state"]
    found = [{name: a.shape for name, a in each.items()} for each in state]
    assert found == [
        {"row": (2, 1), "column": (1, 3)}, {"v": (3,)}, {"row": (3, 1), "column": (1, 4)}, {"v": (4,)}
    ]  # fmt: skip
    state = after_two_steps(optim.Muon())[1].state_dict()["state"]
    found = [{name: a.shape for name, a in each.items()} for each in state]
    assert found == [{"m": (2, 3)}, {"m": (3,), "v": (3,)}, {"m": (3, 4)}, {"m": (4,), "v": (4,)}]
    net, rule = after_two_steps(optim.LBFGS(history=3, steps=4))
    (state,), size = rule.state_dict()["state"], net.parameter_count
    assert {name: a.shape for name, a in state.items()} == {
        "y": (3, size), "s": (3, size), "direction": (size,), "last_g": (size,)
    }  # fmt: skip


def test_each_array_gets_the_numbers_in_its_own_dtype():
    """A number rounded to float32 for the first array would be felt in the second."""
    both, alone = optim.Adam(), optim.Adam()
    first, second, same = np.ones(3, np.float32), np.ones(3), np.ones(3)
    for _ in range(5):
        both.step([first, second], [np.full(3, 0.1, np.float32), np.full(3, 0.1)])
        alone.step([same], [np.full(3, 0.1)])
    np.testing.assert_array_equal(second, same)
    assert first.dtype == np.float32
