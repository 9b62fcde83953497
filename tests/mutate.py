"""Mutation testing of the four modules: one small change at a time, and the module's own tests are to notice it.

    python tests/mutate.py optim --log optim.jsonl                    every mutant; hours
    python tests/mutate.py optim --log optim.jsonl --shard 2/8        the second of eight parts, for another core
    python tests/mutate.py optim --log optim.jsonl --sample 60        so many, drawn by a seed
    python tests/mutate.py optim --log optim.jsonl --report           the score, and what nobody noticed

The log has a line a mutant, so a run that was stopped goes on where it was. Strings, docstrings, annotations and
`raise` statements (what they say) are left alone. Of a mutant those tests run that reach its lines, the quickest
first, up to the first that fails. A mutant that makes the tests hang counts as noticed.
"""

import argparse
import ast
import collections
import copy
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: a shard is one core's work

import coverage
import numpy.testing  # noqa: F401  once, for every fork
import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "layers": ["layers", "gradcheck", "copies", "bad_input", "model"],
    "loss": ["losses", "bad_input", "copies"],
    "optim": ["rules", "optim", "hyper", "state", "wrappers", "evaluation", "copies"],
    "model": ["model", "train", "bad_input", "stops", "evaluation", "files", "state_dict", "copies", "resume"],
}
SECONDS = 600  # that the tests of a module may take; those of a mutant get twice what they took
BYTES = 8 << 30
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip


def places(node, inside="", lines=None):
    """The nodes that a change may be made of, in order: each with the class and the function it stands in, and with
    the lines that run where it counts, its own or, of a default argument, the function's."""
    typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    if typing or isinstance(node, (ast.Raise, ast.JoinedStr)):
        return
    if isinstance(node, (ast.Compare, ast.BoolOp, ast.BinOp, ast.AugAssign, ast.UnaryOp)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float))
    ):
        yield inside, lines or range(node.lineno, node.end_lineno + 1), node
    if isinstance(node, ast.Return) and node.value is not None:
        yield inside, range(node.lineno, node.end_lineno + 1), node
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        inside = f"{inside}.{node.name}" if inside else node.name
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                default = isinstance(node, ast.FunctionDef) and name == "args"
                body = range(node.body[0].lineno, node.end_lineno + 1) if default else lines
                yield from places(each, inside, body)


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


class Only:
    """A plugin of pytest: keeps the tests of a set (all where it is None) and times them; first come those that have
    noticed most so far, then the quickest."""

    def __init__(self, folder, wanted, seconds, noticed):
        self.folder, self.wanted, self.seconds, self.noticed = folder, wanted, seconds, noticed

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if self.wanted is None or item.nodeid in self.wanted]
        items.sort(key=lambda item: (-self.noticed[item.nodeid], self.seconds.get(item.nodeid, 0.0)))

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            (self.folder / "noticed").write_text(report.nodeid)


def run_tests(folder, module, only, *more):
    """Run the module's tests in this process, a fork that ends with pytest's exit code."""
    os.setsid()
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    names = [f"tests/test_{name}.py" for name in TESTS[module]]
    if only.wanted is not None:
        names = sorted({test.split("::")[0] for test in only.wanted})
    # Not the test that plants mistakes itself: it looks for the lines in the source.
    code = pytest.main(["-x", "-p", "no:cacheprovider", "-k", "not mistake_is_seen", *more, *names], plugins=[only])
    (folder / "seconds.json").write_text(json.dumps(only.seconds))
    os._exit(code)


def passes(seconds, *arguments):
    """True if the tests pass in so many seconds, in a fork: NumPy and pytest are imported once, here."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=arguments)
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode == 0


def survey(folder, module):
    """Of each line the tests that reach it (None: all, since it runs while the module is imported); their seconds."""
    cover = [f"--cov={module}", "--cov-context=test", "--cov-report="]
    if not passes(SECONDS, folder, module, Only(folder, None, {}, collections.Counter()), *cover):
        raise SystemExit("the tests fail without any change: see to that first.")
    for compiled in folder.glob(f"__pycache__/{module}.*"):
        compiled.unlink()  # by its time and its size alone it might pass for a changed source
    data = coverage.CoverageData(str(folder / ".coverage"))
    data.read()
    lines = data.contexts_by_lineno(str(folder / f"{module}.py"))
    tests = {line: None if "" in names else {name.split("|")[0] for name in names} for line, names in lines.items()}
    return tests, json.loads((folder / "seconds.json").read_text())


def reaching(tests, lines):
    """The tests that reach any of the lines; None is all."""
    found = [tests.get(line, set()) for line in lines]
    return None if None in found else set().union(*found)


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
    parser.add_argument("--again", action="store_true", help="run those anew that nobody noticed")
    parser.add_argument("--report", action="store_true", help="only say what stands in the log")
    arguments = parser.parse_args()

    source = (ROOT / f"{arguments.module}.py").read_text(encoding="utf-8")
    every = mutants(source)
    lines = arguments.log.read_text().splitlines() if arguments.log.exists() else []
    outcomes = {each["mutant"]: each["noticed"] for each in map(json.loads, lines)}
    if arguments.report:
        return report(every, outcomes)

    names = list(every)
    if arguments.sample:
        names = random.Random(arguments.seed).sample(names, min(arguments.sample, len(names)))
    part, parts = map(int, arguments.shard.split("/"))
    done = {name for name in outcomes if outcomes[name] or not arguments.again}
    names = [name for name in names[part - 1 :: parts] if name not in done]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "tree"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", "__pycache__", "site", "*.egg-info"))
        os.environ["PYTHONPATH"] = str(folder)
        tests, seconds = survey(folder, arguments.module)
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        noticed = collections.Counter()
        for name in names:
            node, lines = every[name]
            (folder / f"{arguments.module}.py").write_text(with_change(source, node), encoding="utf-8")
            wanted = reaching(tests, lines)
            (folder / "noticed").write_text("")
            only = Only(folder, wanted, seconds, noticed)
            limit = 10 + 2 * sum(seconds[test] for test in (seconds if wanted is None else wanted))
            outcomes[name] = wanted != set() and not passes(limit, folder, arguments.module, only)
            noticed[(folder / "noticed").read_text()] += 1
            with arguments.log.open("a") as log:
                log.write(json.dumps({"mutant": name, "noticed": outcomes[name]}) + "\n")
    report(every, outcomes)


if __name__ == "__main__":
    main()
