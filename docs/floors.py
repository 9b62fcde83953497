"""What the manual says of the code's size and floors, from the code itself. `python docs/floors.py` makes it anew:
docs/images/floors.svg from the imports, and the README's "Read in this order" from the number of lines.

A module imports from its own floor and from those below; layers, loss and optim know none of each other.
"""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOUR = ["layers", "loss", "optim", "model"]
MODULES = {name: ROOT / f"{name}.py" for name in FOUR} | {
    ".".join(path.relative_to(ROOT / "layerwise").with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "layerwise").rglob("*.py"))
    if path != ROOT / "layerwise" / "__init__.py"
}
# From the ground up: (name, the rooms and modules that stand there). What is not named stands on the highest.
FLOORS = [
    ("ground: NumPy, and core alone", ["core"]),
    ("maths", ["layers", "loss", "optim", "convolution", "second_order", "schedules"]),
    ("training", ["training", "callbacks"]),
    ("model", ["model"]),
    ("borders", []),
]
PICTURE = ROOT / "docs" / "images" / "floors.svg"
WIDTH, ROW = 760, 22

# In which order to read: (file, as far as this class on the first evening, as far as this one in the end; None: all).
READING = [
    ("loss.py", "MSE", None),
    ("layers.py", "ReLU", None),
    ("optim.py", "SGD", "Adam"),
    ("model.py", "", None),
    ("layerwise/training/loop.py", "", None),
]
LINES_AN_HOUR = 400
README = ROOT / "README.md"
BEGIN, END = "<!-- reading: begin, made by docs/floors.py -->", "<!-- reading: end -->"
COLOURS = 'fill="#f4f7fa" stroke="#0072b2"'


def floor(name: str) -> int:
    room = name.split(".")[0]
    return next((number for number, (_, rooms) in enumerate(FLOORS) if room in rooms), len(FLOORS) - 1)


def known(name: str) -> str | None:
    """The module of ours that a dotted name stands for."""
    name = name.removeprefix("layerwise.")
    return name if name in MODULES else None


@functools.cache
def imports(name: str) -> list[tuple[str, str, str | None]]:
    """(what is imported of ours, written how, within which function) of a module's source; not what type checkers
    alone import. A string that is given to import_module is an import too."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if ast.unparse(node).split("\n")[0] != "if TYPE_CHECKING:"]
    inside = {
        id(node): getattr(function, "name", "lambda")
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    told: list[tuple[str, str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [each if known(each) else node.module or "." for each in whole]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found = re.findall(r"\blayerwise\b[.\w]*", ast.unparse(node.args[0]))
        else:
            continue
        ours = [each for each in found if each.split(".")[0] in {*FOUR, "layerwise", ""}]
        told += [(each, ast.unparse(node), inside.get(id(node))) for each in ours]
    return told


def rooms() -> list[dict[str, list[str]]]:
    """Of each floor: room -> the modules within; a module that stands by itself is a room without any."""
    found: list[dict[str, list[str]]] = [{} for _ in FLOORS]
    for name in MODULES:
        room, _, module = name.partition(".")
        within = found[floor(name)].setdefault(room, [])
        if module and module != "__main__":
            within.append(module)
    return found


def needs() -> dict[tuple[int, int], int]:
    """(floor, a floor below it) -> how many imports lead there."""
    counts: dict[tuple[int, int], int] = {}
    for name in MODULES:
        for target in {known(each) for each, _, _ in imports(name)} - {None}:
            if floor(target) < floor(name):
                way = floor(name), floor(target)
                counts[way] = counts.get(way, 0) + 1
    return counts


def lines(words: list[str], width: int) -> list[str]:
    """The words in lines of at most so many characters."""
    found = [""]
    for word in words:
        if found[-1] and len(found[-1]) + len(word) + 2 > width:
            found.append("")
        found[-1] += f", {word}" if found[-1] else word
    return found


def svg() -> str:
    """The highest floor on top; below its name what stands there, and how many imports lead to each floor below."""
    boxes, y = [], 0
    counts = needs()
    for number, (title, _) in reversed(list(enumerate(FLOORS))):
        texts = []
        for room, within in sorted(rooms()[number].items()):
            texts += lines([f"{room}/ {within[0]}", *within[1:]], 96) if within else []
        alone = [f"{room}.py" for room, within in sorted(rooms()[number].items()) if not within]
        texts += lines(alone, 96) if alone else []
        below = [f"{counts[number, k]} to {FLOORS[k][0].split(':')[0]}" for k in range(number) if (number, k) in counts]
        told = f"imports: {', '.join(below)}" if below else "imports none of ours"
        height = ROW * (len(texts) + 1) + 14
        boxes += [
            f'<rect x="1" y="{y + 1}" width="{WIDTH - 2}" height="{height - 4}" rx="4" {COLOURS}/>',
            f'<text x="14" y="{y + 24}" font-weight="bold">{number}. {title}</text>',
            f'<text x="{WIDTH - 14}" y="{y + 24}" text-anchor="end" fill="#555">{told}</text>',
            *(f'<text x="14" y="{y + 24 + ROW * (k + 1)}">{text}</text>' for k, text in enumerate(texts)),
        ]
        y += height + 6
    body = "\n".join(boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="14">\n'
        f"<title>The floors of layerwise and their modules</title>\n{body}\n</svg>\n"
    )


def lines_as_far_as(file: str, name: str | None) -> int:
    """The number of lines of a file up to the end of a class; None: of all of it, "": of none."""
    text = (ROOT / file).read_text(encoding="utf-8")
    ends = {None: len(text.splitlines()), "": 0}
    classes = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    return (ends | {node.name: node.end_lineno or 0 for node in classes})[name]


def reading() -> str:
    """The README's table of what to read, with the hours that it takes."""
    counts = [(lines_as_far_as(file, first), lines_as_far_as(file, last)) for file, first, last in READING]
    rows = [
        f"| [{file}]({file}) | {f'as far as `{first}`: {few}' if first else ''} | "
        f"{f'as far as `{last}`: {many}' if last else many} |"
        for (file, first, last), (few, many) in zip(READING, counts, strict=True)
    ]
    evening, all_lines = (sum(column) for column in zip(*counts, strict=True))
    hours = [round(each / LINES_AN_HOUR) for each in (evening, all_lines)]
    head = ["| file | lines for one evening | lines in all |", "|---|---|---|"]
    last = f"| together | {evening}: about {hours[0]} hours | {all_lines}: about {hours[1]} hours |"
    told = f"The hours are those of a reader who takes {LINES_AN_HOUR} lines an hour, docstrings included."
    return "\n".join([BEGIN, *head, *rows, last, "", told, END])


def split_readme() -> tuple[str, str, str]:
    """(what stands before the table, the table, what stands after it)"""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    table, after = rest.split(END)
    return before, BEGIN + table + END, after


if __name__ == "__main__":
    before, _, after = split_readme()
    README.write_text(before + reading() + after, encoding="utf-8")
    PICTURE.write_text(svg(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
