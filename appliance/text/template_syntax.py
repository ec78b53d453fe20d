"""Which Jinja a chat template may be written in: a closed list, checked over the syntax tree before anything runs.

Invariants: every construct, filter, test and callable is named here or refused; nothing recurses, every loop is
metered, and no operation lets a short template make a long string by multiplication or formatting.  A template comes
from a signed folder, so this is the second wall; the sandbox is the third.
"""

from __future__ import annotations

from jinja2 import nodes
from jinja2.visitor import NodeTransformer, NodeVisitor

from appliance.text.errors import TemplateRefused

METERED_FILTER = "metered_"
"""Wrapped around what every `for` iterates over; templates cannot name it themselves."""

FILTERS = frozenset(
    {
        *("capitalize", "count", "d", "default", "dictsort", "first", "int", "items", "join", "last", "length", "list"),
        *("lower", "map", "reject", "rejectattr", "replace", "reverse", "safe", "select", "selectattr", "string"),
        *("title", "tojson", "trim", "unique", "upper"),
    }
)
TESTS = frozenset(
    {
        *(
            "!=",
            "<",
            "<=",
            "==",
            ">",
            ">=",
            "boolean",
            "defined",
            "eq",
            "equalto",
            "even",
            "false",
            "float",
            "ge",
            "gt",
        ),
        *("in", "integer", "iterable", "le", "lower", "lt", "mapping", "ne", "none", "number", "odd", "sequence"),
        *("string", "true", "undefined", "upper"),
    }
)
CALLABLES = frozenset({"raise_exception", "range", "namespace", "strftime_now"})
"""`strftime_now` may be asked for but is never defined: a prompt that holds today's date could not be replayed."""
METHODS = frozenset(
    {
        *("capitalize", "count", "cycle", "endswith", "find", "get", "items", "join", "keys", "lower", "lstrip"),
        *("replace", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper", "values"),
    }
)
FORBIDDEN_NAMES = frozenset({"self", "super", "caller", "varargs", "kwargs"})

_STRUCTURE = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Break, nodes.Continue)
_BINDING = (nodes.Assign, nodes.AssignBlock, nodes.NSRef, nodes.Macro, nodes.Name)
_VALUES = (nodes.Const, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword)
_ACCESS = (nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Call)
_LOGIC = (nodes.CondExpr, nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand)
_ARITHMETIC = (nodes.Add, nodes.Sub, nodes.Mod, nodes.FloorDiv, nodes.Neg, nodes.Pos, nodes.Concat)
ALLOWED_NODES = frozenset((*_STRUCTURE, *_BINDING, *_VALUES, *_ACCESS, *_LOGIC, *_ARITHMETIC))


def check_syntax(tree: nodes.Template) -> None:
    """Refuse whatever is not on the list.

    Raises:
        TemplateRefused: with the line and the construct at fault.
    """
    _Checker().visit(tree)


def meter_loops(tree: nodes.Template) -> nodes.Template:
    """Give the tree with every loop's steps counted."""
    metered: nodes.Template = _LoopMetering().visit(tree)
    return metered


class _LoopMetering(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - the visitor's naming
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, METERED_FILTER, [], [], None, None, lineno=node.lineno)
        return node


class _Checker(NodeVisitor):
    def __init__(self) -> None:
        self._macros: set[str] = set()
        """Macros whose body has been read: only these may be called, so no macro can reach itself."""

    def visit(self, node: nodes.Node, *args: object, **kwargs: object) -> object:
        if type(node) not in ALLOWED_NODES:
            raise TemplateRefused(f"the construct {type(node).__name__} is not allowed", line=node.lineno)
        return super().visit(node, *args, **kwargs)

    def visit_Name(self, node: nodes.Name) -> None:  # noqa: N802
        if node.name.startswith("_") or node.name in FORBIDDEN_NAMES or node.name == METERED_FILTER:
            raise TemplateRefused(f"the name {node.name!r} is not allowed", line=node.lineno)

    def visit_Getattr(self, node: nodes.Getattr) -> None:  # noqa: N802
        if node.attr.startswith("_"):
            raise TemplateRefused(f"the attribute {node.attr!r} is not allowed", line=node.lineno)
        self.generic_visit(node)

    def visit_Getitem(self, node: nodes.Getitem) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Const) and str(node.arg.value).startswith("_"):
            raise TemplateRefused(f"the key {node.arg.value!r} is not allowed", line=node.lineno)
        self.generic_visit(node)

    def visit_Filter(self, node: nodes.Filter) -> None:  # noqa: N802
        if node.name not in FILTERS:
            raise TemplateRefused(f"the filter {node.name!r} is not allowed", line=node.lineno)
        self.generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> None:  # noqa: N802
        if node.name not in TESTS:
            raise TemplateRefused(f"the test {node.name!r} is not allowed", line=node.lineno)
        self.generic_visit(node)

    def visit_For(self, node: nodes.For) -> None:  # noqa: N802
        if node.recursive:
            raise TemplateRefused("a recursive loop is not allowed", line=node.lineno)
        self.generic_visit(node)

    def visit_Macro(self, node: nodes.Macro) -> None:  # noqa: N802
        self.generic_visit(node)
        self._macros.add(node.name)

    def visit_Mod(self, node: nodes.Mod) -> None:  # noqa: N802
        # `%` between strings is formatting, and "%999999999d" is a gigabyte.
        if not (isinstance(node.right, nodes.Const) and isinstance(node.right.value, int)):
            raise TemplateRefused("`%` needs a number written out on its right", line=node.lineno)
        self.generic_visit(node)

    def visit_Call(self, node: nodes.Call) -> None:  # noqa: N802
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise TemplateRefused("a call with unpacked arguments is not allowed", line=node.lineno)
        callee = node.node
        if isinstance(callee, nodes.Name):
            allowed = callee.name in CALLABLES | self._macros
            name = callee.name
        else:
            allowed = isinstance(callee, nodes.Getattr) and callee.attr in METHODS
            name = callee.attr if isinstance(callee, nodes.Getattr) else "an expression"
        if not allowed:
            raise TemplateRefused(f"calling {name!r} is not allowed", line=node.lineno)
        self.generic_visit(node)
