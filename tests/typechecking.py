"""The checker of annotations in tests (pyproject.toml names it)."""

import beartype


def check(function):
    """beartype on every function, but not on `__init__`: JAX rebuilds pytree dataclasses around placeholders, shardings
    and stacked arrays, which are not of the annotated type and are not meant to be."""
    return function if function.__name__ == "__init__" else beartype.beartype(function)
