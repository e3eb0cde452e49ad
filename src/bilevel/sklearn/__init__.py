"""Linear models whose regularisation is found by gradient: estimators for scikit-learn.

Imported when first used; needs `pip install 'bilevel[sklearn]'`.
"""

from importlib.util import find_spec

if find_spec("sklearn") is None:
    raise ImportError("bilevel.sklearn needs scikit-learn: pip install 'bilevel[sklearn]'.")

from .classification import LogisticRegressionHO  # noqa: E402
from .regression import (  # noqa: E402
    ElasticNetHO,
    LassoHO,
    RidgeHO,
    WeightedLassoHO,
)

__all__ = ["ElasticNetHO", "LassoHO", "LogisticRegressionHO", "RidgeHO", "WeightedLassoHO"]
