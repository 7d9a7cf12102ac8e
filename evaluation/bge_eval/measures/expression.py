"""Read a measure of ir_measures from its text, such as ``AP(rel=2)@10``.

ir_measures 0.4.3 parses the same texts with ``ast.Num``, which Python 3.12 deprecates and 3.14
no longer has. The text is an expression of Python: a name, parameters by name, a cutoff after @.
"""

from __future__ import annotations

import ast
from typing import Any


def ir_measure(text: str) -> Any:
    """Return ir_measures' object of a measure; `validate_params` then checks the parameters.

    Args:
        text: a measure as ir_measures writes it. Letter case matters.

    Raises:
        SyntaxError: the text is not an expression.
        ValueError: the expression is not a name with parameters and a cutoff.
        NameError: ir_measures has no measure of this name.
    """
    import ir_measures as untyped

    ir_measures: Any = untyped
    node = ast.parse(text.strip(), mode="eval").body
    cutoff: ast.expr | None = None
    parameters: dict[str, Any] = {}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        cutoff = node.right
        node = node.left
    if isinstance(node, ast.Call):
        if node.args:
            raise ValueError(f"'{text}' has a parameter without a name.")
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ValueError(f"'{text}' has a parameter without a name.")
            parameters[keyword.arg] = _value(keyword.value)
        node = node.func
    if not isinstance(node, ast.Name):
        raise ValueError(f"'{text}' does not begin with a measure's name.")
    if node.id not in ir_measures.measures.registry:
        raise NameError(f"ir_measures has no measure {node.id}.")
    measure = ir_measures.measures.registry[node.id]
    if cutoff is not None:
        parameters[measure.AT_PARAM] = _value(cutoff)
    return measure(**parameters)


def _value(node: ast.expr) -> Any:
    """Return a parameter's value: a number, a text, True, False, None, or a dictionary of them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
        return node.value
    if isinstance(node, ast.Dict):
        keys = [_value(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_value, node.values), strict=True))
    raise ValueError(f"{ast.unparse(node)} is not a number, a text, True, False or None.")
