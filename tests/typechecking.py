"""The checker of annotations in tests (pyproject.toml names it)."""

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is asked for


def check(function):
    """beartype on every function, but not on `__init__`: JAX rebuilds pytree dataclasses around placeholders, shardings
    and stacked arrays, which are not of the annotated type and are not meant to be."""
    return function if function.__name__ == "__init__" else _checked(function)
