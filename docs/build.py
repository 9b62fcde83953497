"""The manual as a folder of HTML: `pip install -e ".[docs]" && python docs/build.py`, then open site/index.html.

The pages are the Markdown files beside this one; the reference is made from the docstrings, by pdoc. A link that leads
nowhere ends the build.
"""

import argparse
import importlib
import pkgutil
import re
import shutil
import textwrap
import warnings
from pathlib import Path

import pdoc

import layerwise

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# The order in the menu; pages that are not named come after them.
FIRST = [
    "index", "tutorial", "try", "own", "coming_from", "equals", "files", "sklearn", "comparing", "sweeps", "stacks",
    "optimizers", "optimizers_solve", "convolution", "distributed", "speed", "tested", "architecture",
]  # fmt: skip
FOUR = ["layers", "loss", "optim", "model"]
INNER = {"__init__"}
# What stands in the rooms of layerwise/ and is for users, with the name by which they import it.
IN_ROOMS = {
    "layerwise.compare": "layerwise.compare",
    "layerwise.compare.pictures": "layerwise.pictures",
    "layerwise.compare.report": "layerwise.report",
    "layerwise.training.metrics": "layerwise.metrics",
}


def all_modules() -> list[str]:
    wings = [f"layerwise.{path.stem}" for path in (ROOT / "layerwise").glob("*.py") if path.stem not in INNER]
    return [*FOUR, *sorted([*wings, *IN_ROOMS])]


def build(site: Path, modules: list[str]) -> list[str]:
    """Write the manual into the folder `site`, with the reference of `modules`; the links in it that lead nowhere."""
    for name in modules:
        in_source_order(importlib.import_module(name))
    pdoc.render.configure(docformat="markdown", template_directory=HERE / "template")
    pdoc.render.env.filters["to_html"] = lambda docstring: pdoc.render_helpers.to_html(in_blocks(docstring))
    with warnings.catch_warnings():  # pdoc does not find what a NamedTuple's annotations name, and shows them as text
        warnings.filterwarnings("ignore", message="Error parsing type annotation")
        rooms = [each.name for each in pkgutil.walk_packages(layerwise.__path__, "layerwise.")]
        others = [f"!{re.escape(room)}$" for room in rooms if room not in modules]  # else a package brings all within
        pdoc.pdoc(*modules, *others, output_directory=site)
    for module in modules:
        unlink_hidden(site / (module.replace(".", "/") + ".html"))

    (site / "images").mkdir(exist_ok=True)
    for picture in [*HERE.glob("images/*"), *ROOT.glob("examples/images/*")]:
        shutil.copy(picture, site / "images")
    names = {path.stem for path in HERE.glob("*.md")}
    texts = {name: (HERE / f"{name}.md").read_text(encoding="utf-8") for name in [*FIRST, *sorted(names - {*FIRST})]}
    titles = [(f"{name}.html", text.split("\n", 1)[0].lstrip("# ")) for name, text in texts.items()]
    known = references(modules)
    page = pdoc.render.env.get_template("page.html.jinja2")
    for (href, title), text in zip(titles, texts.values(), strict=True):
        body = linked(pdoc.render_helpers.to_html(to_site(text)), known)
        (site / href).write_text(
            page.render(title=title, body=body, here=href, pages=titles, modules=modules), encoding="utf-8"
        )
    return dead_links(site)


def in_source_order(module) -> None:
    """pdoc shows what `__all__` names, in that order, which is the alphabet's. The files go from simple to hard."""
    if hasattr(module, "__path__"):  # a package holds what its modules define
        return
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    module.__all__ = [name for name in own if name in getattr(module, "__all__", own) and not name.startswith("_")]


def in_blocks(docstring: str) -> str:
    """A docstring as Markdown: what has columns, or is indented, stays as it stands."""

    def block(paragraph: str) -> str:
        if re.search(r"\S   *\S|^ ", paragraph):
            return textwrap.indent(textwrap.dedent(paragraph), "    ")
        return re.sub(r"(`[^`]*`)|\*", lambda match: match[1] or r"\*", paragraph)  # a star is a star

    return "\n\n".join(block(each) for each in docstring.split("\n\n"))


def unlink_hidden(page: Path) -> None:
    """pdoc links what a docstring names even where it does not show it, as a method without a docstring of its own."""
    text = page.read_text(encoding="utf-8")
    shown = set(re.findall(r'\bid="([^"]*)"', text))
    text = re.sub(r'<a href="#([^"]*)">([^<]*)</a>', lambda match: match[0 if match[1] in shown else 2], text)
    page.write_text(text, encoding="utf-8")


def to_site(text: str) -> str:
    """A page's links to other pages and to the examples' pictures, as they are within the site."""
    text = re.sub(r"\]\((\w+)\.md(#[\w-]+)?\)", r"](\1.html\2)", text)
    return text.replace("](../examples/images/", "](images/")


def references(modules: list[str]) -> dict[str, str]:
    """Where a name is explained: `Adam`, `optim.Adam`, `schedules.Cosine`, `layerwise.schedules.Cosine`."""
    known = {}
    for module in modules:
        page = module.replace(".", "/") + ".html"
        known |= {f"{module}.py": page} if module in FOUR else {module: page, IN_ROOMS.get(module, module): page}
        for name in importlib.import_module(module).__all__:
            short = f"{module.split('.')[-1]}.{name}"
            names = {f"{IN_ROOMS[module]}.{name}"} if module in IN_ROOMS else set()
            for each in [f"{module}.{name}", *names, short, *([name] if module in FOUR else [])]:
                known[each] = f"{page}#{name}"
            if module == "layerwise.convolution":
                known |= dict.fromkeys([name, f"layers.{name}"], f"{page}#{name}")
    return known


def linked(body: str, known: dict[str, str]) -> str:
    """Names in code lead to the reference; in tables those of the first column, the others being of other libraries."""

    def link(match: re.Match) -> str:
        return f'<a href="{known[match[1]]}">{match[0]}</a>' if match[1] in known else match[0]

    parts = re.split(r"(</td>.*?</tr>)", body, flags=re.S)  # every second is what follows a first column
    parts[::2] = (re.sub(r"<code>([\w.]+)(\([^<]*\))?</code>(?![^<]*</a>)", link, part) for part in parts[::2])
    return "".join(parts)


def dead_links(site: Path) -> list[str]:
    """Every link within the site whose file or anchor is not there."""
    texts = {path: path.read_text(encoding="utf-8") for path in site.resolve().rglob("*.html")}
    anchors = {path: set(re.findall(r'\bid="([^"]*)"', text)) for path, text in texts.items()}
    dead = []
    for path, text in texts.items():
        for link in sorted(set(re.findall(r'<(?:a|img|link|script)\b[^>]*?\b(?:href|src)="([^"]*)"', text))):
            if re.match(r"\w+:|\$", link):  # elsewhere, or made by the script of the search
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            if not target.is_file() or (anchor and anchor not in anchors.get(target, ())):
                dead.append(f"{path.relative_to(site.resolve())}: {link}")
    return dead


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", nargs="?", type=Path, default=Path("site"), help="the folder to write (default: site)")
    arguments = parser.parse_args()
    dead = build(arguments.site, all_modules())
    if dead:
        raise SystemExit("These links lead nowhere:\n" + "\n".join(dead))
    print(f"the manual is {arguments.site / 'index.html'}")
