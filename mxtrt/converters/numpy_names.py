"""NumPy operators that mean the same as an operator of the classic families."""

from __future__ import annotations

from ..registry import converts_alike
from . import creation, functions, shape

CLASSIC = (creation, functions, shape)  # loaded, so that their converters are there to share

SAME = {
    "_copy": ("_np_copy",),
    "abs": ("_npi_absolute",),
    "cbrt": ("_npi_cbrt",),
    "ceil": ("_npi_ceil",),
    "degrees": ("_npi_degrees",),
    "exp": ("_npi_exp",),
    "expm1": ("_npi_expm1",),
    "fix": ("_npi_fix", "_npi_trunc"),
    "floor": ("_npi_floor",),
    "log": ("_npi_log",),
    "log10": ("_npi_log10",),
    "log1p": ("_npi_log1p",),
    "log2": ("_npi_log2",),
    "negative": ("_npi_negative",),
    "radians": ("_npi_radians",),
    "reciprocal": ("_npi_reciprocal",),
    "relu": ("_npx_relu",),
    "rint": ("_npi_rint",),
    "sigmoid": ("_npx_sigmoid",),
    "sign": ("_npi_sign",),
    "stack": ("_npi_stack",),
    "sqrt": ("_npi_sqrt",),
    "square": ("_npi_square",),
    "_arange": ("_npi_arange",),
    "_ones": ("_npi_ones",),
    "_zeros": ("_npi_zeros",),
    **{name: (f"_npi_{name}",) for name in (
        "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "arcsinh",
        "arccosh", "arctanh")},
}  # fmt: skip

for _op, _others in SAME.items():
    converts_alike(_op, *_others)
