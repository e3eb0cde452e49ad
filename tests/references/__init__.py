"""Independent references: NumPy and SciPy in float64, no line of the library.

Each problem draws a random instance away from kinks, solves it to rounding, proves it by the
residual of the optimality conditions and differentiates it by a dense linear system on the active
set. They judge the library's solutions and gradients; `test_references.py` judges them.

    theta, answer = REFERENCES["lasso"].instance(seed=0, rows=50, columns=60)
    answer.x, answer.residual, answer.margin, answer.vjp(g)["w"]
"""

from .base import Answer, NotSolved, Reference, Theta, central_difference
from .linear_program import l1_analysis_box
from .sets import (
    box_least_squares,
    l2_ball_least_squares,
    l2_ball_projection,
    simplex_least_squares,
)
from .smooth import logistic, ridge
from .sparse import elastic_net, group_lasso, lasso
from .total_variation import tv1d, tv2d_anisotropic, tv2d_isotropic

REFERENCES: dict[str, Reference] = {
    reference.name: reference
    for reference in (
        ridge,
        logistic,
        lasso,
        elastic_net,
        group_lasso,
        simplex_least_squares,
        box_least_squares,
        l2_ball_projection,
        l2_ball_least_squares,
        l1_analysis_box,
        tv1d,
        tv2d_anisotropic,
        tv2d_isotropic,
    )
}

__all__ = ["REFERENCES", "Answer", "NotSolved", "Reference", "Theta", "central_difference"]
