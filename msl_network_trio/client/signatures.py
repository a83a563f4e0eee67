"""Signatures of remote methods, parsed from the identity of a Service.

The functions have no state and may be called from any thread.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from inspect import Parameter, Signature


def parse_signature(text: object) -> Signature | None:
    """Parse a signature such as ``(x: int, y=2, *args) -> float``, without evaluating any of it.

    Annotations stay texts. Defaults that are literals become values, others stay texts.

    Returns:
        The signature; None if it is not one of Python, since Services may be written in any language.
    """
    if not isinstance(text, str) or not text.startswith("("):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python may warn of the text, of an invalid escape for example
            tree = ast.parse(f"def method{text}: ...")
        match tree.body:
            case [ast.FunctionDef(body=[ast.Expr(ast.Constant(value=x))]) as method] if x is Ellipsis:
                return _signature(method)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass  # not one of Python
    return None


def _signature(method: ast.FunctionDef) -> Signature:
    arguments = method.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [None] * required + list(arguments.defaults)
    parameters = []
    for number, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        positional_only = number < len(arguments.posonlyargs)
        kind = Parameter.POSITIONAL_ONLY if positional_only else Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(_parameter(argument, kind, default))
    if arguments.vararg is not None:
        parameters.append(_parameter(arguments.vararg, Parameter.VAR_POSITIONAL))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters.append(_parameter(argument, Parameter.KEYWORD_ONLY, default))
    if arguments.kwarg is not None:
        parameters.append(_parameter(arguments.kwarg, Parameter.VAR_KEYWORD))
    returns = Signature.empty if method.returns is None else ast.unparse(method.returns)
    return Signature(parameters, return_annotation=returns)


def _parameter(argument: ast.arg, kind: inspect._ParameterKind, default: ast.expr | None = None) -> Parameter:
    return Parameter(
        argument.arg,
        kind,
        default=Parameter.empty if default is None else _value(default),
        annotation=Parameter.empty if argument.annotation is None else ast.unparse(argument.annotation),
    )


def _value(default: ast.expr) -> object:
    try:
        return ast.literal_eval(default)
    except (ValueError, TypeError):
        return ast.unparse(default)
