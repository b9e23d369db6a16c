"""Nothing in the product is there for its own tests only: every module is reached from a program, by imports alone.

A program is a `__main__`, a module run by name (`if __name__ == "__main__"`; generators of pages and manifests are such), or an entry point
of the distribution. A module that a program loads by a name in a string (commands, environments, vLLM's worker) counts as imported.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from asyncppo.api.generated import repository_root

ROOTS = {"asyncppo": "images/shared", "asyncppo_runtime": "images/runtime", "asyncppo_operator": "operator"}

# Not of any program, and why it is in the product all the same.
EXEMPT = {
    "asyncppo.sync.simulation": "rollouts without a model, which tests and benchmarks of the coordinator play with",
}


def modules() -> dict[str, Path]:
    """Dotted name → file, packages under their own name."""
    found = {}
    for package, root in ROOTS.items():
        base = repository_root() / root
        for file in (base / package).rglob("*.py"):
            parts = list(file.relative_to(base).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def named(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that a module imports, or has as a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.:]+", node.value):
            yield node.value.partition(":")[0]
            yield node.value.rpartition(".")[0]


def is_program(name: str, tree: ast.Module) -> bool:
    """Whether Python runs the module by its name."""
    if name.endswith(".__main__"):
        return True
    return any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body)


def unreached(sources: dict[str, str], entries: set[str]) -> set[str]:
    """Modules (name → source) that no program among them leads to. Importing a module runs the packages it lies in."""
    trees = {name: ast.parse(source) for name, source in sources.items()}
    waiting = [name for name, tree in trees.items() if name in entries or is_program(name, tree)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in trees and name not in seen:
            seen.add(name)
            waiting += [name.rpartition(".")[0], *named(trees[name])]
    return trees.keys() - seen


def test_every_module_of_the_product_is_reached_from_a_program() -> None:
    project = tomllib.loads((repository_root() / "pyproject.toml").read_text())["project"]
    entries = {value.partition(":")[0] for value in project["scripts"].values()}
    lost = unreached({name: file.read_text() for name, file in modules().items()}, entries)
    exempt = {name for name in lost if any(name == each or name.startswith(f"{each}.") for each in EXEMPT)}
    assert lost == exempt, "only tests import these: delete them, or let a program use them"
    assert all(any(name.startswith(each) for name in exempt) for each in EXEMPT), "an exemption that is needed no more"


def test_it_finds_what_only_tests_would_import() -> None:
    sources = {
        "p": "",
        "p.__main__": "from p import used\nNAME = 'p.plugin:Thing'\n",
        "p.used": "import p.deep\n",
        "p.deep": "",
        "p.plugin": "",
        "p.tool": "if __name__ == '__main__':\n    pass\n",
        "p.dead": "from p import dead_too\n",
        "p.dead_too": "from p import dead\n",
    }
    assert unreached(sources, set()) == {"p.dead", "p.dead_too"}
