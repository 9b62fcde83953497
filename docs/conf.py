"""The manual as a site: `pip install -e ".[docs]" && sphinx-build -W docs site`, then open site/index.html.

The pages are the Markdown files beside this one; the reference is made from the docstrings. With -W a link that leads
nowhere ends the build.
"""

import importlib
import re
import textwrap
from pathlib import Path

from docutils import nodes

import layerwise

# The pages in the order of the menu.
PAGES = [
    "tutorial", "try", "own", "coming_from", "equals", "files", "sklearn", "comparing", "sweeps", "stacks",
    "optimizers", "optimizers_solve", "convolution", "distributed", "speed", "tested", "architecture",
]  # fmt: skip
FOUR = ["layers", "loss", "optim", "model"]
# What stands in the packages of layerwise and is for users, by the name that they import.
IN_PACKAGES = ["layerwise.compare", "layerwise.metrics", "layerwise.pictures", "layerwise.report"]
MODULES = [
    *FOUR,
    *sorted([*IN_PACKAGES, *(f"layerwise.{path.stem}" for path in Path(layerwise.__file__).parent.glob("[!_]*.py"))]),
]

project = "layerwise"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "layerwise"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = html_show_copyright = False
default_role = "literal"
myst_heading_anchors = 3
python_maximum_signature_line_length = 90
highlight_language = "text"
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"


def write_reference(app):
    """A page for each module, which autodoc fills from the docstrings in the order of the source."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for name in app.config.modules:
        module = importlib.import_module(name)
        own = [each for each, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        if own:  # a package holds what its modules define
            public = getattr(module, "__all__", own)
            others = [each for each in public if each in vars(module) and each not in own]
            module.__all__ = [each for each in (*own, *others) if each in public and not each.startswith("_")]
        (folder / f"{name}.rst").write_text(f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n")


def add_contents(app, docname, source):
    """The first page holds the table of contents, which the menu shows."""
    if docname == "index":
        for caption, pages in ("Manual", PAGES), ("Reference", [f"reference/{name}" for name in app.config.modules]):
            source[0] += "\n\n```{toctree}\n:hidden:\n:caption: " + caption + "\n\n" + "\n".join(pages) + "\n```\n"


def as_rst(app, what, name, obj, options, lines):
    """A docstring's formulas and tables, which are indented or have columns, stay as they stand. Arguments that are
    explained in columns become a list, which a narrow page can break into lines."""

    def block(paragraph):
        arguments = r"([\w, *]+\w)  +(\S.*(?:\n {6,}.*)*)"
        if re.fullmatch(rf"(?:{arguments}(?:\n|$)){{2,}}", paragraph):
            rows = re.findall(rf"^{arguments}", paragraph, re.M)
            return "\n".join(f"``{name}``\n    {plain(' '.join(text.split()))}" for name, text in rows)
        if re.search(r"\S   *\S|^ ", paragraph, re.M):
            return "::\n\n" + textwrap.indent(textwrap.dedent(paragraph), "    ")
        return plain(paragraph)

    def plain(text):
        return re.sub(r"(`[^`]*`)|([*|\\]|_(?!\w))", lambda match: match[1] or f"\\{match[2]}", text)

    paragraphs = "\n".join(lines).strip("\n").split("\n\n")
    lines[:] = [*"\n\n".join(block(each) for each in paragraphs).split("\n"), ""]


def skip_foreign(app, what, name, obj, skip, options):
    """What a class has from scikit-learn is explained there, and the fields of a NamedTuple in its own docstring."""
    foreign = str(getattr(obj, "__module__", "")).startswith("sklearn")
    return True if foreign or str(obj.__doc__).startswith("Alias for field number") else None


def link_names(app, doctree, docname):
    """Names in code lead to the reference; in tables those of the first column, the others being of other libraries."""
    known = {}
    for full, entry in app.env.get_domain("py").objects.items():
        module, _, name = full.removeprefix("layerwise.").partition(".")
        reached = {"convolution": "layers", "second_order": "optim"}.get(module, module)
        short = [name, f"{reached}.{name}"] if reached in FOUR else []
        known |= dict.fromkeys([full, f"{module}.{name}" if name else full, *short], entry)
    known |= {f"{name}.py": known.pop(name) for name in FOUR if name in known}  # `optim` alone is a variable too
    for code in list(doctree.findall(nodes.literal)):
        entry = known.get(re.sub(r"\(.*", "", code.astext()))
        cell = next((each for each in parents(code) if isinstance(each, nodes.entry)), None)
        free = not isinstance(code.parent, (nodes.reference, nodes.title))
        if entry and free and (cell is None or cell.parent[0] is cell):
            uri = app.builder.get_relative_uri(docname, entry.docname) + f"#{entry.node_id}"
            code.replace_self(nodes.reference("", "", code.deepcopy(), internal=True, refuri=uri))


def parents(node):
    while node := node.parent:
        yield node


def setup(app):
    app.add_config_value("modules", MODULES, "env")
    app.connect("builder-inited", write_reference)
    app.connect("source-read", add_contents)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("autodoc-process-docstring", as_rst)
    app.connect("doctree-resolved", link_names)
