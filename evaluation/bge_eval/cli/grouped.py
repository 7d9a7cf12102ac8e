"""Commands whose options are records: one dataclass for the options of one subject.

::

    @dataclass(frozen=True, slots=True)
    class SearchFlags:
        top_k: Annotated[int, typer.Option(min=1, help="Documents to keep.")] = 100

    @grouped
    def search(query: str, flags: SearchFlags) -> None: ...

Typer sees ``search(query, top_k=100)``; the function gets ``flags=SearchFlags(top_k=…)``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Give typer one parameter for every field of the dataclasses in a command's signature.

    A field of a dataclass may itself be a dataclass; its fields are options too. Parameters of
    other types stay as they are. Options appear in the help in the order of the signature.

    Args:
        command: the command. Its dataclasses annotate every field with ``typer.Option`` or
            ``typer.Argument``.

    Raises:
        TypeError: two fields have the same name, so that their options would be one.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    options: list[Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            options += _options(groups[parameter.name])
        else:
            hint = hints[parameter.name]
            options.append(parameter.replace(annotation=hint, kind=Parameter.KEYWORD_ONLY))
    names = [option.name for option in options]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TypeError(f"{command.__name__} declares an option twice: {', '.join(twice)}")

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        records = {name: _record(group, values) for name, group in groups.items()}
        others = {name: values[name] for name in values if name in hints and name not in records}
        command(**records, **others)

    del flat.__dict__["__wrapped__"]  # typer would read the grouped signature
    flat.__dict__["__signature__"] = inspect.Signature(options, return_annotation=None)
    flat.__annotations__ = {option.name: option.annotation for option in options}
    return flat


def _options(group: Any) -> Iterator[Parameter]:
    """Yield one parameter for each field, those of nested dataclasses in their place."""
    hints = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _options(hint)
            continue
        default = Parameter.empty if field.default is dataclasses.MISSING else field.default
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _record(group: Any, values: Mapping[str, Any]) -> Any:
    """Build a group's record from the values of all options."""
    hints = get_type_hints(group)
    return group(
        **{
            field.name: _record(hints[field.name], values)
            if dataclasses.is_dataclass(hints[field.name])
            else values[field.name]
            for field in dataclasses.fields(group)
        }
    )
