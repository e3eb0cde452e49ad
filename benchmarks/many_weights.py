"""A weight for each of up to 100 000 features of sparse designs: seconds and memory of a search.

python benchmarks/many_weights.py      # benchmarks/results/many_weights.md; each size in a process
"""

import multiprocessing
import time
import warnings

import numpy as np
import scipy.sparse
from measure import peak_mib, store

SIZES = (6_250, 12_500, 25_000, 50_000, 100_000)
EACH = 25  # nonzeros in a row, of which there are a tenth as many as features
INFORMATIVE = 50
NOTES = (
    f"Rows: a tenth of the features, {EACH} nonzeros in each; {INFORMATIVE} features matter, the "
    "noise is half as large as what they say. A part in five is held out by the search, another by "
    "the judge. MiB of data: X as it is stored. MiB more: the most that the process held beyond "
    "what it held before the search. Seconds of the processor."
)


def problem(n: int) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    generator, m = np.random.default_rng(0), n // 10
    columns = generator.integers(0, n, (m, EACH))
    columns[:, :5] = generator.integers(0, INFORMATIVE, (m, 5))
    values, starts = generator.standard_normal(columns.size), EACH * np.arange(m + 1)
    X = scipy.sparse.csr_array((values, columns.ravel(), starts), (m, n))
    X.sum_duplicates()
    signal = X[:, :INFORMATIVE] @ generator.standard_normal(INFORMATIVE)
    return X, signal + 0.5 * signal.std() * generator.standard_normal(m)


def searched(n: int) -> dict:
    import torch
    from sklearn.model_selection import ShuffleSplit

    from bilevel.sklearn import LassoHO, WeightedLassoHO

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    X, y = problem(n)
    k, cv = len(y) * 4 // 5, ShuffleSplit(1, test_size=0.25, random_state=0)
    WeightedLassoHO(cv=cv, max_iter=1).fit(X[:200], y[:200])  # compiles
    row = {"features": n, "MiB of data": (X.data.nbytes + X.indices.nbytes) / 2**20}
    for name, model in (("one weight", LassoHO(cv=cv)), ("a weight each", WeightedLassoHO(cv=cv))):
        before, start = peak_mib(), time.process_time()
        model.fit(X[:k], y[:k])
        row[f"seconds, {name}"] = time.process_time() - start
        row["MiB more"] = peak_mib() - before + row.get("MiB more", 0.0)
        row[f"test error, {name}"] = float(np.square(model.predict(X[k:]) - y[k:]).mean())
    return row | {"looks": len(model.path_)}


def main() -> None:
    rows = []
    for n in SIZES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(searched, (n,)))
        print(rows[-1], flush=True)
    columns = [
        "features", "MiB of data", "MiB more", "seconds, one weight", "seconds, a weight each",
        "looks", "test error, one weight", "test error, a weight each",
    ]  # fmt: skip
    store("many_weights", "A weight for each of many features", rows, columns, NOTES)


if __name__ == "__main__":
    main()
