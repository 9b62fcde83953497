"""Mutation testing of the four modules and of what carries a rule: one small change at a time, and the tests notice it.

    python tests/mutate.py optim --log optim.jsonl                    every mutant
    python tests/mutate.py optim --log optim.jsonl --shard 2/8        the second of eight parts, for another core
    python tests/mutate.py optim --log optim.jsonl --seconds 12       no more than 12 seconds of tests for each
    python tests/mutate.py optim --log optim.jsonl --sample 60        so many, drawn by a seed
    python tests/mutate.py optim --log optim.jsonl --again            those anew that nobody noticed
    python tests/mutate.py optim --log optim.jsonl --report           the score, and what nobody noticed

The log has a line a mutant, so a run that was stopped goes on where it was. Strings, docstrings, annotations and
`raise` statements (what they say) are left alone. pytest finds the tests once; each mutant's code is grafted into the
module in a fork of that process, and those tests run that reach its lines, up to the first that fails. What was made
while the tests were found keeps the old code, so that a mutant may pass that a run from the start would have noticed,
never the reverse. A mutant that makes the tests hang counts as noticed.
"""

import argparse
import ast
import collections
import contextlib
import copy
import inspect
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import types
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: a shard is one core's work

import coverage
import pytest
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
OPTIM = ["rules", "optim", "hyper", "state", "wrappers", "evaluation", "line_search", "copies"]
MODEL = [
    "model", "train", "data", "bad_input", "stops", "evaluation", "files", "state_dict", "copies", "resume", "slips",
]  # fmt: skip
TESTS = {
    "layers": [
        "layers", "gradcheck", "copies", "bad_input", "model", "convolution", "threads", "numbers", "duties",
        "telemetry",
    ],
    "loss": ["losses", "bad_input", "copies"],
    "optim": OPTIM,
    "layerwise.second_order": OPTIM,
    **dict.fromkeys([f"layerwise.core.{name}" for name in ("hyper", "layout", "blocks", "state", "linesearch")], OPTIM),
    "model": MODEL,
    **dict.fromkeys([f"layerwise.training.{name}" for name in ("loop", "means", "resume", "serialize")], MODEL),
}  # fmt: skip
SECONDS = 900  # that the tests of a module may take; those of a mutant get three times what they took
BYTES = 8 << 30
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip


def places(node, inside="", within=False):
    """The nodes that a change may be made of, in order: each with the class and the function it stands in, and its
    lines; outside the bodies of functions None, since those ran when the module was imported."""
    typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    if typing or isinstance(node, (ast.Raise, ast.JoinedStr)):
        return
    if isinstance(node, (ast.Compare, ast.BoolOp, ast.BinOp, ast.AugAssign, ast.UnaryOp)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float))
    ):
        yield inside, range(node.lineno, node.end_lineno + 1) if within else None, node
    if isinstance(node, ast.Return) and node.value is not None:
        yield inside, range(node.lineno, node.end_lineno + 1), node
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        inside = f"{inside}.{node.name}" if inside else node.name
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from places(each, inside, name == "body" if isinstance(node, ast.FunctionDef) else within)


def changed(node):
    """Change the node; False where there is nothing to change."""
    if isinstance(node, ast.Compare):
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, (ast.BoolOp, ast.BinOp, ast.AugAssign)):
        if type(node.op) not in SWAPS:
            return False
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.UnaryOp):
        if not isinstance(node.op, (ast.Not, ast.USub)):
            return False
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else node.op
        if isinstance(node.op, ast.Not):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    else:
        node.value = ast.Constant(None)
    return True


def mutants(source):
    """Every mutant and its lines, by a name that stays when other lines change: its place, what it is, the number."""
    found, counts = {}, collections.Counter()
    for inside, lines, node in places(ast.parse(source)):
        mutant = copy.deepcopy(node)
        if not changed(mutant) or ast.dump(mutant) == ast.dump(node):
            continue
        name = f"{inside}: {ast.unparse(node)} -> {ast.unparse(mutant)}"
        counts[name] += 1
        found[f"{name} #{counts[name]}"] = mutant, lines
    return found


def with_change(source, node):
    """The source with the node written anew, all else as it was."""
    text = ast.unparse(node)
    text = f"({text})" if isinstance(node, ast.expr) else text
    lines = source.encode().splitlines(keepends=True)  # columns are counted in bytes
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    after = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    return (before + text.encode() + after).decode()


PLAIN = (bool, int, float, str, bytes, tuple, list, dict, set, frozenset, type(None))


def graft(old, new):
    """Give a module, or a class, that is in use everywhere the code, the defaults and the plain values of `new`."""
    for name, value in list(vars(new).items()):
        was = vars(old).get(name)
        if value is new:  # a class that names itself
            continue
        if isinstance(value, type) and value.__module__ == (old.__name__ if inspect.ismodule(old) else old.__module__):
            graft(was, value)
        elif isinstance(value, property):
            for each in ("fget", "fset"):
                give(getattr(was, each), getattr(value, each))
        elif isinstance(value, (staticmethod, classmethod)) or callable(value):
            give(*(inspect.unwrap(getattr(each, "__func__", each)) for each in (was, value)))
        elif isinstance(value, PLAIN) and not name.startswith("__") and value != was:
            setattr(old, name, value)
        getattr(was, "cache_clear", int)()


def give(was, function):
    if not isinstance(function, types.FunctionType) or function.__module__ != was.__module__ or was is function:
        return
    # A change may have taken the last use of __class__: the code then wants a cell less, which it is given unused.
    if len(function.__code__.co_freevars) == len(was.__code__.co_freevars):
        was.__code__ = function.__code__
    else:
        was.__code__ = function.__code__.replace(co_freevars=was.__code__.co_freevars)
    for defaults in ("__defaults__", "__kwdefaults__"):
        if repr(getattr(was, defaults)) != repr(getattr(function, defaults)):
            setattr(was, defaults, getattr(function, defaults))


class Loop:
    """A plugin of pytest, which finds the tests once: then every mutant meets them in a fork of this process."""

    def __init__(self, module, each):
        self.module, self.each = module, each
        self.seconds, self.failed = {}, None

    def pytest_runtestloop(self, session):
        self.items = {item.nodeid: item for item in session.items}
        self.path = Path(sys.modules[self.module].__file__)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # what the tests start compiles the mutant, not an earlier one
        sys.dont_write_bytecode = True
        self.each(self)
        return True

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed = report.nodeid

    def run(self, names, cover=None):
        """The tests of these names, up to the first that fails: its name, or None."""
        items = [self.items[name] for name in names]
        for item, following in itertools.zip_longest(items, items[1:]):
            if cover:
                cover.switch_context(item.nodeid)
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                break
        return self.failed

    def with_source(self, source, names, seconds, cover=False):
        """(the test that fails with this source, what else was found); a source that hangs fails too."""
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=self.child, args=(source, names, cover, sender))
        process.start()
        sender.close()
        try:
            told = receiver.recv() if receiver.poll(seconds) else ("it hangs", None)
        except EOFError:
            told = "it ends the process", None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return told

    def child(self, source, names, cover, sender):
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        self.path.write_text(source, encoding="utf-8")  # for processes that the tests start
        old = sys.modules[self.module]
        new = types.ModuleType(old.__name__)
        new.__file__, new.__package__ = old.__file__, old.__package__
        try:
            exec(compile(source, old.__file__, "exec"), vars(new))
            graft(old, new)
        except Exception as error:
            sender.send((repr(error), None))
            return
        measured = coverage.Coverage(data_file=None, include=[str(self.path)]) if cover else None
        if measured:
            measured.start()
        failed = self.run(names, measured)
        lines = {}
        if measured:
            measured.stop()
            lines = measured.get_data().contexts_by_lineno(str(self.path))
        sender.send((failed, (lines, self.seconds)))


def order(names, noticed, seconds):
    """Those that have noticed most so far first, then the quickest."""
    return sorted(names, key=lambda name: (-noticed[name], seconds.get(name, 0.0), name))


def report(every, outcomes):
    for name in every:
        if outcomes.get(name) is False:
            print(f"line {every[name][0].lineno}, {name}")
    found = [outcomes[name] for name in every if name in outcomes]
    share = sum(found) / max(len(found), 1)
    print(f"{sum(found)} of {len(found)} mutants were noticed: {share:.1%} ({len(every)} in all)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", choices=TESTS)
    parser.add_argument("--log", type=Path, required=True, help="where the outcomes go, a line each")
    parser.add_argument("--shard", default="1/1", help="which part of how many")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn by --seed, and no more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="tests of so many seconds at most for a mutant")
    parser.add_argument("--again", action="store_true", help="run those anew that nobody noticed")
    parser.add_argument("--report", action="store_true", help="only say what stands in the log")
    arguments = parser.parse_args()

    source = (ROOT / f"{arguments.module.replace('.', '/')}.py").read_text(encoding="utf-8")
    every = mutants(source)
    lines = arguments.log.read_text().splitlines() if arguments.log.exists() else []
    outcomes = {each["mutant"]: each["noticed"] for each in map(json.loads, lines)}
    if arguments.report:
        return report(every, outcomes)

    names = list(every)
    if arguments.sample:
        names = random.Random(arguments.seed).sample(names, min(arguments.sample, len(names)))
    part, members = map(int, arguments.shard.split("/"))
    done = {name for name in outcomes if outcomes[name] or not arguments.repeated}
    names = [name for name in names[part - 1 :: members] if name not in done]

    tqdm.monitor_interval = 0  # its thread does not go well with forks

    def each(loop):
        failed, found = loop.with_source(source, order(loop.items, collections.Counter(), {}), SECONDS, cover=True)
        if failed:
            pytest.exit(f"the tests fail without any change: {failed}. See to that first.", 1)
        reached, seconds = found
        noticed = collections.Counter()
        for name in tqdm(names, unit="mutant"):
            node, lines = every[name]
            # What ran when the module was imported any test may notice.
            tests = loop.items if lines is None else set().union(*(reached.get(line, ()) for line in lines))
            tests = order(tests, noticed, seconds)
            if arguments.seconds:
                sums = itertools.accumulate(seconds[test] for test in tests)
                tests = [test for test, total in zip(tests, sums, strict=True) if total <= arguments.seconds]
            limit = 10 + 3 * sum(seconds[test] for test in tests)
            failed, _ = loop.with_source(with_change(source, node), tests, limit)
            noticed[failed] += 1
            outcomes[name] = failed is not None
            with arguments.log.open("a") as log:
                log.write(json.dumps({"mutant": name, "noticed": outcomes[name], "by": failed}) + "\n")

    arguments.log = arguments.log.resolve()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "tree"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", "__pycache__", "site", "*.egg-info"))
        os.environ["PYTHONPATH"] = str(folder)
        os.chdir(folder)
        # Not the test that plants mistakes itself: it looks for the lines in the source.
        told = ["-q", "-s", "--tb=no", "-n", "0", "-p", "no:cacheprovider", "-k", "not mistake_is_seen"]
        told += [f"tests/test_{name}.py" for name in TESTS[arguments.module]]
        pytest.main(told, plugins=[Loop(arguments.module, each)])
    report(every, outcomes)


if __name__ == "__main__":
    main()
