"""The laws, as functions: give them your own term, operator, solver or solution.

Each raises an AssertionError that names the law and by how much it is broken. The inputs are drawn
by the caller: try several shapes, float64, and points on both sides of every kink.

>>> import torch, bilevel as bl
>>> from bilevel import testing
>>> testing.prox_minimises(0.3 * bl.L1(), torch.randn(8, 5, dtype=torch.float64), step=0.7)
"""

from . import solution_maps
from .gradients import gradcheck, gradgradcheck, gradients_agree
from .operators import absolute_is_entrywise, adjoint_dot_test, is_linear, norm_bounds
from .solvers import batch_is_alone, fixed_point, solvers_agree
from .terms import (
    conjugate_inequality,
    constants_hold,
    dual_scale_fits,
    grad_is_autograd,
    manifold_is_that_of_prox,
    moreau,
    prox_firmly_nonexpansive,
    prox_gives_subgradient,
    prox_minimises,
    take_is_indexing,
    values_are_per_sample,
    weight_multiplies,
)

__all__ = [
    "absolute_is_entrywise",
    "adjoint_dot_test",
    "batch_is_alone",
    "conjugate_inequality",
    "constants_hold",
    "dual_scale_fits",
    "fixed_point",
    "grad_is_autograd",
    "gradcheck",
    "gradgradcheck",
    "gradients_agree",
    "is_linear",
    "manifold_is_that_of_prox",
    "moreau",
    "norm_bounds",
    "prox_firmly_nonexpansive",
    "prox_gives_subgradient",
    "prox_minimises",
    "solution_maps",
    "solvers_agree",
    "take_is_indexing",
    "values_are_per_sample",
    "weight_multiplies",
]
