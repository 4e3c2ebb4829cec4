"""The parameters of a model, in whatever form the caller keeps them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Union

import mxnet as mx

from .errors import BadModel, BadParams, mxnet_sentence

if TYPE_CHECKING:
    Arrays = Mapping[str, mx.nd.NDArray]

PREFIXES = ("arg:", "aux:")

ParamsLike = Union[None, str, "os.PathLike[str]", Mapping[str, Any], "tuple[Any, Any]", "list[Any]"]
"""A dict with or without ``arg:``/``aux:`` prefixes, ``(arg_params, aux_params)``, or a path."""


@dataclass(frozen=True)
class Params:
    """The arrays by name, and how to give a selection of them back in the caller's form.

    Attributes
    ----------
    arrays : mapping of str to mxnet.nd.NDArray or None
        None when the caller gave no parameters at all.
    keep : callable
        Takes the names to keep and returns them as the caller had them.
    """

    arrays: Arrays | None
    keep: Callable[[Collection[str]], Any]

    @property
    def names(self) -> set[str]:
        """The plain names of all arrays."""
        return set(self.arrays or ())


def read_params(params: ParamsLike) -> Params:
    """Read parameters in any of the forms that MXNet users have them in.

    Raises
    ------
    BadModel
        The params file does not exist or cannot be read.
    BadParams
        The form is none of the known ones, or a value is not an MXNet array.
    """
    if params is None:
        return Params(None, lambda names: None)
    if isinstance(params, (str, os.PathLike)):
        return _from_dict(_load(os.fspath(params)))
    if isinstance(params, Mapping):
        return _from_dict(params)
    if isinstance(params, (tuple, list)) and len(params) == 2:
        return _from_pair(params)
    raise BadParams(
        f"params is a {type(params).__name__}; pass a dict of arrays, a pair "
        "(arg_params, aux_params), or the path of a .params file"
    )


def _load(path: str) -> Mapping[str, mx.nd.NDArray]:
    if not os.path.exists(path):
        raise BadModel(f"{path}: no such params file")
    try:
        loaded = mx.nd.load(path)
    except mx.base.MXNetError as error:
        raise BadModel(
            f"{path}: not a params file, or a damaged one ({mxnet_sentence(error)})"
        ) from None
    if not loaded:  # an empty list is what MXNet reads where an empty dict was saved
        return {}
    if not isinstance(loaded, dict):
        raise BadModel(f"{path}: holds arrays without names; parameters need names")
    return loaded


def _from_dict(given: Mapping[str, Any]) -> Params:
    arrays: dict[str, mx.nd.NDArray] = {}
    for key, array in given.items():
        name = _plain(key)
        if name in arrays:
            raise BadParams(f"params has {name!r} twice, as {key!r} and under another prefix")
        arrays[name] = _checked(name, array)

    def keep(names: Collection[str]) -> dict[str, Any]:
        return {key: array for key, array in given.items() if _plain(key) in names}

    return Params(arrays, keep)


def _from_pair(pair: tuple[Any, Any] | list[Any]) -> Params:
    both: list[Mapping[str, Any]] = []
    for which, half in zip(("arg_params", "aux_params"), pair):
        if half is not None and not isinstance(half, Mapping):
            raise BadParams(f"{which} is a {type(half).__name__}; it must be a dict of arrays")
        both.append(half or {})
    twice = set(both[0]) & set(both[1])
    if twice:
        raise BadParams(f"{sorted(twice)[0]!r} is in both arg_params and aux_params")
    arrays = {name: _checked(name, a) for half in both for name, a in half.items()}

    def keep(names: Collection[str]) -> Any:
        kept = [{n: a for n, a in half.items() if n in names} for half in both]
        return kept if isinstance(pair, list) else tuple(kept)

    return Params(arrays, keep)


def _plain(key: str) -> str:
    return key[4:] if key.startswith(PREFIXES) else key


def _checked(name: str, array: Any) -> mx.nd.NDArray:
    if not isinstance(array, mx.nd.NDArray):
        raise BadParams(
            f"the parameter {name!r} is a {type(array).__name__}; it must be an mx.nd.NDArray"
        )
    if array.stype != "default":
        raise BadParams(f"the parameter {name!r} is {array.stype}; call .tostype('default') on it")
    return array
