"""Elementary functions whose bits are the same on every processor.

Used by the planner. NumPy's own `exp` and `log` choose their code by CPU and version, so that
parameters drawn with them would differ between machines.

Invariants: only + - * / and square root, which IEEE 754 rounds in one way, exact scaling by powers
of two, and constants. Never `np.exp`, `np.log` or `np.sin`, never a dot product or a reduction,
whose order of summation is free.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# ln 2 in two parts: the high one has 32 trailing zero bits, so that k * LN2_HIGH is exact
# (fdlibm, e_exp.c).
_LN2_HIGH: Final = 6.93147180369123816490e-01
_LN2_LOW: Final = 1.90821492927058770002e-10


def exp(x: Floats) -> Floats:
    """Return e**x for |x| <= 700, within 2 units in the last place.

    x = k ln 2 + r with |r| <= ln(2)/2, then the Taylor series of e**r to r**14.
    """
    k = np.rint(x / (_LN2_HIGH + _LN2_LOW))
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = np.ones_like(r)
    for n in range(14, 0, -1):
        total = 1.0 + total * r / float(n)
    return np.asarray(np.ldexp(total, k.astype(np.int64)), dtype=np.float64)


def log(x: Floats) -> Floats:
    """Return the natural logarithm of x > 0, finite, within 2 units in the last place.

    x = m 2**k with m in [sqrt(1/2), sqrt(2)), then log m = 2 artanh((m - 1) / (m + 1)).
    """
    m, k = np.frexp(x)
    is_low = m < 0.7071067811865476
    m = np.where(is_low, m * 2.0, m)
    k = np.where(is_low, k - 1, k).astype(np.float64)
    z = (m - 1.0) / (m + 1.0)
    square = z * z
    total = np.zeros_like(square)
    for n in range(23, 1, -2):
        total = (total + 1.0 / float(n)) * square
    return np.asarray(k * _LN2_HIGH + (k * _LN2_LOW + 2.0 * z * (1.0 + total)), dtype=np.float64)


# A quarter turn in radians; the nearest double.
_QUARTER: Final = 1.5707963267948966


def sin_cos(turns: Floats) -> tuple[Floats, Floats]:
    """Return sine and cosine of an angle in full turns, within 2 units in the last place of 1.

    Quarter turns are exact: 4 t = k + r with |r| <= 1/2 has no rounding error, and the Taylor
    series of sine to x**17 and of cosine to x**16 are 0 and 1 where r = 0.
    """
    quarters = 4.0 * turns
    k = np.rint(quarters)
    x = (quarters - k) * _QUARTER
    square = x * x
    sine, cosine = np.ones_like(x), np.ones_like(x)
    for n in range(16, 0, -2):
        sine = 1.0 - sine * square / float(n * (n + 1))
        cosine = 1.0 - cosine * square / float(n * (n - 1))
    sine *= x
    quadrant = k.astype(np.int64) & 3
    is_swapped = (quadrant & 1).astype(np.bool_)
    first, second = np.where(is_swapped, cosine, sine), np.where(is_swapped, sine, cosine)
    first = np.where(quadrant >= 2, -first, first)
    return first, np.where((quadrant == 1) | (quadrant == 2), -second, second)


# Source: Wichura 1988, algorithm AS 241 (PPND16), coefficients from the highest power down.
_CENTRE_TOP: Final = (
    2.5090809287301226727e3,
    3.3430575583588128105e4,
    6.7265770927008700853e4,
    4.5921953931549871457e4,
    1.3731693765509461125e4,
    1.9715909503065514427e3,
    1.3314166789178437745e2,
    3.3871328727963666080e0,
)
_CENTRE_BOTTOM: Final = (
    5.2264952788528545610e3,
    2.8729085735721942674e4,
    3.9307895800092710610e4,
    2.1213794301586595867e4,
    5.3941960214247511077e3,
    6.8718700749205790830e2,
    4.2313330701600911252e1,
    1.0,
)
_MIDDLE_TOP: Final = (
    7.74545014278341407640e-4,
    2.27238449892691845833e-2,
    2.41780725177450611770e-1,
    1.27045825245236838258e0,
    3.64784832476320460504e0,
    5.76949722146069140550e0,
    4.63033784615654529590e0,
    1.42343711074968357734e0,
)
_MIDDLE_BOTTOM: Final = (
    1.05075007164441684324e-9,
    5.47593808499534494600e-4,
    1.51986665636164571966e-2,
    1.48103976427480074590e-1,
    6.89767334985100004550e-1,
    1.67638483018380384940e0,
    2.05319162663775882187e0,
    1.0,
)
_TAIL_TOP: Final = (
    2.01033439929228813265e-7,
    2.71155556874348757815e-5,
    1.24266094738807843860e-3,
    2.65321895265761230930e-2,
    2.96560571828504891230e-1,
    1.78482653991729133580e0,
    5.46378491116411436990e0,
    6.65790464350110377720e0,
)
_TAIL_BOTTOM: Final = (
    2.04426310338993978564e-15,
    1.42151175831644588870e-7,
    1.84631831751005468180e-5,
    7.86869131145613259100e-4,
    1.48753612908506148525e-2,
    1.36929880922735805310e-1,
    5.99832206555887937690e-1,
    1.0,
)


def normal_quantile(p: Floats) -> Floats:
    """Return the standard normal quantile of 0 < p < 1, within a relative 1e-15 or so."""
    q = p - 0.5
    near = 0.180625 - q * q
    centre = q * _polynomial(_CENTRE_TOP, near) / _polynomial(_CENTRE_BOTTOM, near)
    far = np.sqrt(-log(np.where(q < 0.0, p, 1.0 - p)))
    middle = _polynomial(_MIDDLE_TOP, far - 1.6) / _polynomial(_MIDDLE_BOTTOM, far - 1.6)
    tail = _polynomial(_TAIL_TOP, far - 5.0) / _polynomial(_TAIL_BOTTOM, far - 5.0)
    outer = np.copysign(np.where(far <= 5.0, middle, tail), q)
    return np.asarray(np.where(np.abs(q) <= 0.425, centre, outer), dtype=np.float64)


def _polynomial(coefficients: tuple[float, ...], x: Floats) -> Floats:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total
