"""The upper level: learning the parameters of models whose layers solve optimisation problems."""

from bilevel.learning.adaptive import AdaptiveInexact
from bilevel.learning.by_rule import ByRule
from bilevel.learning.checkpoint import Damaged
from bilevel.learning.gradient_sampling import GradientSampling
from bilevel.learning.learn import Interrupted, LearnResult, learn
from bilevel.learning.metrics import psnr, ssim
from bilevel.learning.risk import gsure, sure
from bilevel.learning.run_folder import RunFolder, fill, read_config, read_metrics, read_model
from bilevel.learning.stochastic import ALSET, SABA, SOBA, StochasticResult, learn_stochastic
from bilevel.warm_start import WarmStarts

__all__ = [
    "ALSET",
    "AdaptiveInexact",
    "ByRule",
    "Damaged",
    "GradientSampling",
    "Interrupted",
    "LearnResult",
    "SABA",
    "SOBA",
    "RunFolder",
    "StochasticResult",
    "WarmStarts",
    "fill",
    "gsure",
    "learn",
    "learn_stochastic",
    "psnr",
    "read_config",
    "read_metrics",
    "read_model",
    "ssim",
    "sure",
]
