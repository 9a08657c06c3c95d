"""The stub `_engine.pyi` and the extension module say the same."""

import ast
import inspect
from pathlib import Path

import mrtc_engine
import pytest
from mrtc_engine import _engine

STUB = ast.parse((Path(mrtc_engine.__file__).parent / "_engine.pyi").read_text())
CLASSES = [node for node in STUB.body if isinstance(node, ast.ClassDef)]

pytestmark = pytest.mark.integration


def parameters(function: ast.FunctionDef) -> list[tuple[str, bool, bool]]:
    """(name, is keyword-only, has a default) of each parameter but self."""
    arguments = function.args
    positional = arguments.args[1:]
    missing = len(positional) - len(arguments.defaults)
    found = [(a.arg, False, at >= missing) for at, a in enumerate(positional)]
    return found + [
        (a.arg, True, default is not None)
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]


def real_parameters(function: object) -> list[tuple[str, bool, bool]]:
    """The same of the binary."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    return [
        (p.name, p.kind is p.KEYWORD_ONLY, p.default is not p.empty)
        for p in signature.parameters.values()
        if p.name != "self"
    ]


def public_names(scope: object) -> set[str]:
    return {name for name in vars(scope) if not name.startswith("_")}


def test_the_module_has_the_stubs_names() -> None:
    """Nothing is missing and nothing is undocumented."""
    assert public_names(_engine) - {"Engine"} | {"Engine"} == {node.name for node in CLASSES}


@pytest.mark.parametrize("node", CLASSES, ids=lambda node: node.name)
def test_a_class_has_the_stubs_members(node: ast.ClassDef) -> None:
    """Methods, properties and nested classes are the same."""
    real = getattr(_engine, node.name)
    functions = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    nested = [item for item in node.body if isinstance(item, ast.ClassDef)]
    fields = [
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    names = {f.name for f in functions} | {c.name for c in nested} | set(fields)
    if issubclass(real, Exception):
        return
    assert public_names(real) == {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize(
    "node", [c for n in CLASSES for c in n.body if isinstance(c, ast.ClassDef)], ids=lambda n: n.name
)
def test_a_variant_has_the_stubs_fields(node: ast.ClassDef) -> None:
    """Each variant of Reply and Event is a subclass with the stub's fields."""
    base = _engine.Reply if hasattr(_engine.Reply, node.name) else _engine.Event
    real = getattr(base, node.name)
    assert issubclass(real, base)
    fields = [
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    assert set(real.__match_args__) == set(fields)


@pytest.mark.parametrize("node", CLASSES, ids=lambda node: node.name)
def test_functions_have_the_stubs_parameters(node: ast.ClassDef) -> None:
    """Names, keyword-only or not, optional or not."""
    real = getattr(_engine, node.name)
    for function in (item for item in node.body if isinstance(item, ast.FunctionDef)):
        if any(isinstance(d, ast.Name) and d.id == "property" for d in function.decorator_list):
            continue
        target = real if function.name == "__init__" else getattr(real, function.name)
        assert real_parameters(target) == parameters(function), f"{node.name}.{function.name}"


def test_default_values_are_the_stubs() -> None:
    """EngineConfig's defaults in the binary equal those in the stub."""
    node = next(c for c in CLASSES if c.name == "EngineConfig")
    init = next(f for f in node.body if isinstance(f, ast.FunctionDef))
    stub = {
        a.arg: ast.literal_eval(d)
        for a, d in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
        if d is not None
    }
    signature = inspect.signature(_engine.EngineConfig)
    real = {n: p.default for n, p in signature.parameters.items() if p.default is not p.empty}
    assert real == stub
