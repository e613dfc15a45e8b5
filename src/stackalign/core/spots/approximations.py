"""Exponential and logarithm in float32 by arithmetic alone, so that LLVM makes vector code of loops with them."""

# mypy: allow-untyped-defs, allow-untyped-calls
# numba infers the types of what it compiles
from __future__ import annotations

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from stackalign.core.compiled import kernel

_F = np.float32
_ZERO, _HALF, _ONE = _F(0), _F(0.5), _F(1)
_LOG2E, _LN2_HI, _LN2_LO = _F(1.44269504), _F(0.693359375), _F(-2.12194440e-4)
_E2, _E3, _E4, _E5, _E6, _E7 = (_F(v) for v in (0.5, 0.16666666, 0.041666508, 0.0083333679, 0.0013981999, 1.987569e-4))
_LOG = tuple(
    _F(v)
    for v in (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
)
_P0, _P1, _P2, _P3, _P4, _P5, _P6, _P7, _P8 = _LOG


_INT, _FLOAT = ir.IntType(32), ir.FloatType()
_ROOT_HALF = ir.Constant(_INT, 0x3F3504F3)  # the bits of sqrt(1/2)


@intrinsic
def bits(typingctx, value):
    """Return the bits of a number; among positive numbers they are in the order of the numbers."""

    def code(context, builder, signature, args):
        return builder.bitcast(args[0], _INT)

    return types.int32(types.float32), code


@intrinsic
def number(typingctx, value):
    """Return the number of which these are the bits."""

    def code(context, builder, signature, args):
        return builder.bitcast(args[0], _FLOAT)

    return types.float32(types.int32), code


# whole numbers of numba are 64 bits wide in sums, and would halve the vectors
@intrinsic
def _power(typingctx, n):
    """Return 2^n for a whole n in [-126, 127]."""

    def code(context, builder, signature, args):
        biased = builder.add(builder.fptosi(args[0], _INT), ir.Constant(_INT, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INT, 23)), _FLOAT)

    return types.float32(types.float32), code


@intrinsic
def _exponent(typingctx, value):
    """Return the exponent of a number of which the fraction lies in [sqrt(1/2), sqrt(2))."""

    def code(context, builder, signature, args):
        bits = builder.sub(builder.bitcast(args[0], _INT), _ROOT_HALF)
        return builder.sitofp(builder.ashr(bits, ir.Constant(_INT, 23)), _FLOAT)

    return types.float32(types.float32), code


@intrinsic
def _fraction(typingctx, value):
    """Return that fraction."""

    def code(context, builder, signature, args):
        bits = builder.sub(builder.bitcast(args[0], _INT), _ROOT_HALF)
        bits = builder.and_(bits, ir.Constant(_INT, 0x007FFFFF))
        return builder.bitcast(builder.add(bits, _ROOT_HALF), _FLOAT)

    return types.float32(types.float32), code


@kernel
def exp(x):
    """Return exp(x) for x in [-80, 0], to 1e-7: arithmetic only, so that LLVM makes vector code of it."""
    n = np.floor(x * _LOG2E + _HALF)
    f = x - n * _LN2_HI - n * _LN2_LO
    p = ((((_E7 * f + _E6) * f + _E5) * f + _E4) * f + _E3) * f + _E2
    p = p * f * f + f + _ONE
    return p * _power(n)


@kernel
def log(x):
    """Return log(x) for normal x > 0, to 1e-7 (Cephes' polynomial)."""
    n = _exponent(x)
    f = _fraction(x) - _ONE
    p = ((((_P0 * f + _P1) * f + _P2) * f + _P3) * f + _P4) * f + _P5
    p = ((p * f + _P6) * f + _P7) * f + _P8
    z = f * f
    return f + (f * z * p - _HALF * z + n * _LN2_LO) + n * _LN2_HI
