"""Mutation testing of the four modules: one small change at a time, and the module's own tests are to notice it.

    python tests/mutate.py optim --log optim.jsonl                    every mutant; hours
    python tests/mutate.py optim --log optim.jsonl --shard 2/8        the second of eight parts, for another core
    python tests/mutate.py optim --log optim.jsonl --sample 60        so many, drawn by a seed
    python tests/mutate.py optim --log optim.jsonl --report           the score, and what nobody noticed

The log has a line a mutant, so a run that was stopped goes on where it was. Strings, docstrings, annotations and
`raise` statements (what they say) are left alone. A mutant that makes the tests hang counts as noticed.
"""

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "layers": ["layers", "gradcheck", "copies", "bad_input", "model"],
    "loss": ["losses", "bad_input", "copies"],
    "optim": ["rules", "optim", "hyper", "state", "wrappers", "copies"],
    "model": ["model", "train", "bad_input", "stops", "evaluation", "files", "state_dict", "copies", "resume"],
}
SECONDS = 240
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip


def places(node):
    """The nodes that a change may be made of, in order."""
    typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    if typing or isinstance(node, (ast.Raise, ast.JoinedStr)):
        return
    if isinstance(node, (ast.Compare, ast.BoolOp, ast.BinOp, ast.AugAssign, ast.UnaryOp)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float))
    ):
        yield node
    if isinstance(node, ast.Return) and node.value is not None:
        yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from places(each)


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


def with_change(source, node):
    """The source with the node written anew, all else as it was."""
    text = ast.unparse(node)
    text = f"({text})" if isinstance(node, ast.expr) else text
    lines = source.encode().splitlines(keepends=True)  # columns are counted in bytes
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    after = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    return (before + text.encode() + after).decode()


def noticed(folder, module):
    names = [f"tests/test_{name}.py" for name in TESTS[module]]
    # Not the test that plants mistakes itself: it looks for the lines in the source.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "not mistake_is_seen",
        *names,
    ]
    environment = os.environ | {"PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def report(lines):
    found = [json.loads(line) for line in lines]
    for each in found:
        if not each["noticed"]:
            print(f"line {each['line']}: {each['change']}")
    killed = sum(each["noticed"] for each in found)
    print(f"{killed} of {len(found)} mutants were noticed: {killed / max(len(found), 1):.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", choices=TESTS)
    parser.add_argument("--log", type=Path, required=True, help="where the outcomes go, a line each")
    parser.add_argument("--shard", default="1/1", help="which part of how many")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn by --seed, and no more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="only say what stands in the log")
    arguments = parser.parse_args()
    lines = arguments.log.read_text().splitlines() if arguments.log.exists() else []
    if arguments.report:
        return report(lines)

    source = (ROOT / f"{arguments.module}.py").read_text(encoding="utf-8")
    every = list(places(ast.parse(source)))
    numbers = list(range(len(every)))
    if arguments.sample:
        numbers = random.Random(arguments.seed).sample(numbers, min(arguments.sample, len(numbers)))
    part, parts = map(int, arguments.shard.split("/"))
    done = {json.loads(line)["number"] for line in lines}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tree"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", "__pycache__", "site", "*.egg-info"))
        if noticed(folder, arguments.module):
            raise SystemExit("the tests fail without any change: see to that first.")
        for number in numbers[part - 1 :: parts]:
            if number in done:
                continue
            node = copy.deepcopy(every[number])
            before = ast.unparse(node)
            if not changed(node):
                continue
            (folder / f"{arguments.module}.py").write_text(with_change(source, node), encoding="utf-8")
            told = {"number": number, "line": node.lineno, "change": f"{before} -> {ast.unparse(node)}"[:200]}
            told["noticed"] = noticed(folder, arguments.module)
            with arguments.log.open("a") as log:
                log.write(json.dumps(told) + "\n")
    report(arguments.log.read_text().splitlines())


if __name__ == "__main__":
    main()
