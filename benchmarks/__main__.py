"""All benchmarks, one after the other: python -m benchmarks. Hours on two cores."""

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent

if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    chosen = sys.argv[1:] or [
        "overhead", "tv_bsd68", "tv_1d", "tv_2d", "tv_2d_derivative", "tv_larger",
        "declarative_node", "gradient_errors", "certificates", "derivative_convergence",
        "unrolled_gradients",
        "strategy_bias", "quadratic_programs", "hyper_parameters", "many_weights", "distributed",
        "adaptive_inexact", "composed_adjoints", "search_baselines", "filters_bsd68",
        "filters_step",
        "speech_dequantize", "speech_solving", "speech_gradients", "speech_arms",
        "learned_sparse", "equilibrium", "stopping_time", "data_cleaning", "no_clean",
    ]  # fmt: skip
    for name in chosen:
        print(f"== {name}", flush=True)
        sys.argv = [name]
        runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
