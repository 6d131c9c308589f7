"""Bayesian optimisation: suggests the next point by a Gaussian process. Needs scikit-learn (`polylocal[bo]`).

The daemon runs this module as a child process and exchanges JSON with it, so that it never loads scikit-learn itself.

Sources: Snoek et al., "Practical Bayesian Optimization of Machine Learning Algorithms" (2012), for the acquisition
functions; the platform's rules for the encoding and for how the acquisition is maximised.
"""

import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any

from polylocal.errors import SetupError
from polylocal.polyaxonfile import HPTuning, Matrix
from polylocal.runner.search import Params, Trial, key, rank_trials, sample

N_WARMUP = 1000  # random points at which the acquisition function is evaluated first
N_ITER = 5  # the best of them, from which L-BFGS starts
CANDIDATES = 4096  # the most points of a space of lists that are evaluated
TIMEOUT_S = 300
# length scales in the unit cube; a fit beyond them has no information about the space between points
LENGTHS = (0.05, 10.0)
RESTARTS = 2  # the least number of starts of a fit: a single one may miss the optimum

Axis = list[float]


class OptimizerProcess:
    """The child process of the optimisation. Thread-safe.

    It starts with the first question and is kept for the next: importing scikit-learn takes most of the time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stderr: IO[str] | None = None  # its error output

    def __call__(self, tuning: HPTuning, seed: str, trials: Sequence[Trial]) -> Params | None:
        """The next point; None: the space is used up. Raises SetupError, for example if scikit-learn is missing."""
        tuning_data = tuning.model_dump(exclude_none=True)
        question = json.dumps({"tuning": tuning_data, "seed": seed, "trials": [asdict(trial) for trial in trials]})
        with self._lock:
            try:
                answer = self._exchange(question)
            except OSError as error:
                answer, why = "", f"bayesian optimisation does not answer: {error}"
            else:
                why = "bayesian optimisation ended without a message"
            if not answer:
                words = self._last_error_line()
                self._terminate()
                raise SetupError(words or why)
        found: Params | None = json.loads(answer)
        return found

    def close(self) -> None:
        """End the process. Idempotent. A question that is being answered fails; the next one starts a new process."""
        process = self._process
        if self._lock.acquire(blocking=False):
            try:
                self._terminate()
            finally:
                self._lock.release()
        elif process is not None:
            process.kill()

    def _exchange(self, question: str) -> str:
        if self._process is None:
            # the matrices are small: more threads would only wait for each other
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  open for as long as the process
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                env=environment,
            )
        asked, told = self._process.stdin, self._process.stdout
        if asked is None or told is None:
            raise OSError("it has no pipes")
        timeout = threading.Timer(TIMEOUT_S, self._process.kill)
        timeout.daemon = True
        timeout.start()
        try:
            asked.write(question + "\n")
            asked.flush()
            return told.readline()
        finally:
            timeout.cancel()

    def _last_error_line(self) -> str:
        if self._process is not None:
            self._process.wait()
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()
        return lines[-1] if lines else ""

    def _terminate(self) -> None:
        process, stderr = self._process, self._stderr
        self._process = self._stderr = None
        if process is not None:
            with process:  # closing its input ends it; this waits for its end
                process.kill()
        if stderr is not None:
            stderr.close()


def suggest(tuning: HPTuning, seed: str, trials: Sequence[Trial]) -> Params | None:
    """The untried point with the highest value of the acquisition function; None: the space is used up."""
    import numpy as np
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern

    if tuning.bo is None:
        raise ValueError("not a bayesian optimisation")
    utility, metric, matrix = tuning.bo.utility_function, tuning.bo.metric, tuning.matrix or {}
    tried = {key({name: trial.params.get(name) for name in matrix}) for trial in trials}
    told = rank_trials(trials, metric)
    fresh = [params for params in _random_points(tuning, f"{seed}/{len(trials)}", utility) if key(params) not in tried]
    if not fresh:
        return None
    if len(told) < 2:
        return fresh[0]
    process = utility.gaussian_process if utility else None
    scale, nu = (process.length_scale, process.nu) if process else (1.0, 1.5)
    is_smooth = process is not None and process.kernel == "rbf"
    shape = RBF(scale, LENGTHS) if is_smooth else Matern(length_scale=scale, length_scale_bounds=LENGTHS, nu=nu)
    kernel = ConstantKernel(1.0, (0.05, 20.0)) * shape
    sign = 1.0 if metric.optimization == "maximize" else -1.0
    x = np.array([_encode(matrix, trial.params) for trial in told])
    y = np.array([sign * float(trial.value or 0.0) for trial in told])
    values = (y - y.mean()) / (float(y.std()) or 1.0)
    best, number = float(values.max()), abs(hash_of(seed)) % 2**32
    regressor = GaussianProcessRegressor(
        kernel=kernel,
        alpha=1e-6,
        n_restarts_optimizer=max(RESTARTS, process.n_restarts_optimizer if process else 0),
        random_state=number,
    )
    regressor.fit(x, values)
    points = np.array([_encode(matrix, params) for params in fresh])
    gain = _acquisition(regressor, points, best, utility)
    if _is_listed(matrix):
        return fresh[int(np.argmax(gain))]
    starts = [fresh[i] for i in np.argsort(-gain, kind="stable")[: (utility.n_iter if utility else None) or N_ITER]]
    climbed = [_hill_climb(matrix, params, regressor, best, utility) for params in starts]
    candidates = [params for params in [*climbed, *starts] if key(params) not in tried]
    points = np.array([_encode(matrix, params) for params in candidates])
    return candidates[int(np.argmax(_acquisition(regressor, points, best, utility)))]


def hash_of(seed: str) -> int:
    """A number that is equal for equal seeds in every process."""
    return int.from_bytes(seed.encode()[-8:].rjust(8, b"\0"), "big")


def _random_points(tuning: HPTuning, seed: str, utility: Any) -> list[Params]:
    wanted = CANDIDATES if _is_listed(tuning.matrix or {}) else (utility.n_warmup if utility else None) or N_WARMUP
    return list(itertools.islice(sample(tuning, seed), wanted))


def _acquisition(regressor: Any, points: Any, best: float, utility: Any) -> Any:
    """The acquisition: upper confidence bound, expected improvement, or probability of improvement."""
    import numpy as np
    from scipy.stats import norm

    mean, deviation = regressor.predict(points, return_std=True)
    name = utility.acquisition_function if utility else "ucb"
    if name == "ucb":
        kappa = utility.kappa if utility else 2.576
        return mean + kappa * deviation
    above = mean - best - utility.eps
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(deviation > 0, above / deviation, 0.0)
    if name == "poi":
        return norm.cdf(z)
    return np.where(deviation > 0, above * norm.cdf(z) + deviation * norm.pdf(z), 0.0)


def _hill_climb(matrix: dict[str, Matrix], params: Params, regressor: Any, best: float, utility: Any) -> Params:
    """Climb from a point along the continuous axes."""
    import numpy as np
    from scipy.optimize import minimize

    start = _encode(matrix, params)
    free = _continuous_axes(matrix)
    if not free:
        return params

    def negative_acquisition(values: Any) -> float:
        point = list(start)
        for place, value in zip(free, values, strict=True):
            point[place] = float(value)
        return -float(_acquisition(regressor, np.array([point]), best, utility)[0])

    done = minimize(negative_acquisition, [start[i] for i in free], bounds=[(0.0, 1.0)] * len(free), method="L-BFGS-B")
    moved = dict(params)
    for place, value in zip(free, done.x, strict=True):
        name = _axis_names(matrix)[place]
        moved[name] = _decode(matrix[name], float(value))
    return moved


def _encode(matrix: dict[str, Matrix], params: Params) -> list[float]:
    """Encode params as a point of the unit cube: a number by its range, each word on its own axis."""
    found: list[float] = []
    for name, option in matrix.items():
        found += _axes(option, params.get(name))
    return found


def _axes(option: Matrix, value: Any) -> Axis:
    if option.is_distribution:
        low, high = getattr(option, option.option)[:2]
        is_log = "log" in option.option
        number = (math.log(value) if value > 0 else low) if is_log else float(value)
        return [max(0.0, (number - low) / (high - low))]  # a quantised value may be below its range
    listed = option.listed
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in listed):
        low, high = float(min(listed)), float(max(listed))
        return [(float(value) - low) / (high - low) if high > low else 0.0]
    return [1.0 if item == value else 0.0 for item in listed]


def _decode(option: Matrix, place: float) -> float:
    low, high = getattr(option, option.option)[:2]
    number = low + place * (high - low)
    return math.exp(number) if option.option == "loguniform" else number


def _axis_names(matrix: dict[str, Matrix]) -> list[str]:
    return [
        name
        for name, option in matrix.items()
        for _ in _axes(option, 1.0 if option.is_distribution else option.listed[0])
    ]


def _continuous_axes(matrix: dict[str, Matrix]) -> list[int]:
    smooth = {name for name, option in matrix.items() if option.option in ("uniform", "loguniform")}
    return [place for place, name in enumerate(_axis_names(matrix)) if name in smooth]


def _is_listed(matrix: dict[str, Matrix]) -> bool:
    return not any(option.is_distribution for option in matrix.values())


def main() -> None:
    """Answer one question per line until the input ends."""
    for line in sys.stdin:
        question = json.loads(line)
        tuning = HPTuning.model_validate(question["tuning"])
        try:
            found = suggest(tuning, question["seed"], [Trial(**trial) for trial in question["trials"]])
        except ImportError as error:
            sys.exit(f"bayesian optimisation needs scikit-learn: pip install 'polylocal[bo]' ({error})")
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
