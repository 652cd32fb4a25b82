"""How sure a model may be, from its answers on val: a temperature, bounds for a number, a gate for strange images.

Temperature scaling follows Guo et al. 2017 (arXiv 1706.04599); the bounds are the split conformal ones of Lei et al. 2018
(arXiv 1604.04173), for each side on its own. A merge changes the logits and the errors, so what was fitted on an adapter alone
does not hold for it. Whether the fit is good, the debiased calibration error of Kumar et al. 2019 (arXiv 1909.10155) says,
without the part that few images in a bin add, and the calibration slope of Cox 1958 ("Two further applications of a model for
binary regression"): 1 is right, below it the answers are too sure, above it not sure enough.
"""

import numpy as np
from jaxtyping import Float, Int

from lora_lab.cards import Calibration, Gate
from lora_lab.tasks import Task

COVERED = 0.90
LET_THROUGH = 0.95
BINS = 15
STEPS = 12


def calibrate(task: Task, outputs: Float[np.ndarray, "n outputs"], targets: np.ndarray) -> Calibration | None:
    """The calibration of a head from its outputs on n images; none for points."""
    if task.kind == "classes":
        temperature = fit_temperature(outputs, targets)
        ece = (calibration_error(outputs, targets), calibration_error(outputs / temperature, targets))
        return Calibration(n=len(targets), temperature=round(temperature, 4), ece=(round(ece[0], 2), round(ece[1], 2)))
    if task.kind == "number":
        errors = targets - (outputs[:, 0] * task.scale + task.offset)
        low, high = bounds(errors)
        order = np.random.default_rng(0).permutation(len(errors))
        halves = errors[order[::2]], errors[order[1::2]]
        covered = [np.mean((one >= bounds(other)[0]) & (one <= bounds(other)[1])) for one, other in (halves, halves[::-1])]
        return Calibration(
            n=len(errors), low=round(low, 2), high=round(high, 2), coverage=round(100 * float(np.mean(covered)), 1)
        )
    return None


def fit_temperature(logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, "n"]) -> float:
    """The number to divide logits by for the least negative log likelihood, in 0.2–5."""
    temperatures = np.geomspace(0.2, 5, 400)
    return float(min(temperatures, key=lambda t: _negative_log_likelihood(logits / t, targets)))


def calibration_error(logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, "n"]) -> float:
    """Expected calibration error in percent, over 15 bins of equal width of the confidence."""
    chances = np.exp(_log_softmax(logits))
    sure, right = chances.max(1), chances.argmax(1) == targets
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(sure[place == b].sum() - right[place == b].sum()) for b in range(BINS)]
    return 100 * sum(gaps) / len(targets)


def cross_fitted(logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n classes"]:
    """Each half of the logits divided by the temperature of the other half, so that no image is judged by itself."""
    order = np.random.default_rng(0).permutation(len(targets))
    scaled = np.empty_like(logits)
    for one, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        scaled[one] = logits[one] / fit_temperature(logits[other], targets[other])
    return scaled


def debiased_error(logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, "n"]) -> float:
    """The root of the mean squared gap between confidence and accuracy in percent, over 15 bins of equally many images.

    From each bin's squared gap the variance of its accuracy is taken off, which few images alone would show.
    """
    chances = np.exp(_log_softmax(logits))
    sure, right = chances.max(1), (chances.argmax(1) == targets).astype(float)
    squares = []
    for rows in np.array_split(np.argsort(sure), BINS):
        accuracy = right[rows].mean()
        noise = accuracy * (1 - accuracy) / max(len(rows) - 1, 1)
        squares.append(len(rows) * ((sure[rows].mean() - accuracy) ** 2 - noise))
    return 100 * float(np.sqrt(max(0.0, sum(squares) / len(targets))))


def calibration_slope(
    logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, "n"], counts: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, "draws"]:
    """How the log odds of being right rise with those that the confidence claims, on each draw of the images.

    `counts` says how often each image was drawn; a row of ones stands for all of them. Nan where a draw holds no wrong answer.
    """
    chances = _log_softmax(logits)
    best = chances.max(1)
    # The log of 1 minus the largest chance, from the others, since that chance may be 1 but for the rounding.
    rest = np.where(chances == best[:, None], -np.inf, chances)
    claimed = (best - np.log(np.exp(rest).sum(1) + 1e-12)).astype(np.float64)
    right = (chances.argmax(1) == targets).astype(np.float64)
    fits = np.stack([_logistic_slope(claimed, right, row) for row in counts.astype(np.float64)])
    return np.where(counts @ (1 - right) > 0, fits, np.nan)


def _logistic_slope(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n"]) -> float:
    # Newton's steps for intercept and slope from zero; the tiny ridge keeps a draw that is nearly separable from running away.
    columns = np.stack([np.ones_like(x), (x - x.mean()) / x.std()], 1)
    fit = np.zeros(2)
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(columns @ fit, -30, 30)))
        slope = columns.T @ (weights * (y - chance))
        curvature = (columns * (weights * chance * (1 - chance))[:, None]).T @ columns + 1e-6 * np.eye(2)
        fit = fit + np.linalg.solve(curvature, slope)
    return float(fit[1] / x.std())


def bounds(errors: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """What to add to an answer so that the truth lies between in 90 % of new images, 5 % missing on either side."""
    n, miss = len(errors), (1 - COVERED) / 2
    ordered = np.sort(errors)
    place = min(n, int(np.ceil((n + 1) * (1 - miss))))
    return float(ordered[n - place]), float(ordered[place - 1])


def gate(nearness: Float[np.ndarray, "n"]) -> Gate:
    """The gate that lets 95 % of val through, from each image's nearness to a class mean."""
    threshold = float(np.quantile(nearness, 1 - LET_THROUGH))
    return Gate(threshold=round(threshold, 4), passed=round(100 * float(np.mean(nearness >= round(threshold, 4))), 1))


def _log_softmax(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _negative_log_likelihood(logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, "n"]) -> float:
    return float(-_log_softmax(logits)[np.arange(len(targets)), targets].mean())
