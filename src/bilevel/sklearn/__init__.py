"""Linear models whose regularisation is found by gradient: estimators for scikit-learn.

Imported by itself, `import bilevel.sklearn`; needs `pip install 'bilevel[sklearn]'`.
"""

from .classification import LogisticRegressionHO
from .regression import ElasticNetHO, LassoHO, RidgeHO, WeightedLassoHO

__all__ = ["ElasticNetHO", "LassoHO", "LogisticRegressionHO", "RidgeHO", "WeightedLassoHO"]
