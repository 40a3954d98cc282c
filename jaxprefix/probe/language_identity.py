"""How well the language can be read from sentence vectors: multinomial logistic regression, as in scikit-learn."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import log_softmax

TRAIN_SHARE = 0.7
SEED = 0
ITERATIONS = 300
TOLERANCE = 1e-4  # of the gradient, as in scikit-learn


def held_out(vectors: Float[np.ndarray, "J n D"]) -> tuple[Bool[np.ndarray, "m J"], Bool[np.ndarray, "m J"]]:
    """Whether the language of each of m held-out sentences is recognized, and the same for a control.

    A sentence is in one half with all its translations, so that its content does not tell the language. The labels of
    the control are shuffled, in both halves.
    """
    random = np.random.default_rng(SEED)
    languages, count = vectors.shape[:2]
    order = random.permutation(count)
    learn, test = np.split(vectors[:, order], [round(TRAIN_SHARE * count)], axis=1)
    mean, std = learn.mean(axis=(0, 1), dtype=np.float64), learn.std(axis=(0, 1), dtype=np.float64)
    std = np.where(std > 0, std, 1)
    learn, test = (learn - mean) / std, (test - mean) / std

    def right(labels: Int[np.ndarray, "J n"]) -> Bool[np.ndarray, "m J"]:
        learnt, tested = np.split(labels, [learn.shape[1]], axis=1)
        weights, bias = fit(learn.reshape(-1, learn.shape[-1]), learnt.ravel(), languages)
        return (np.argmax(test @ weights.T + bias, axis=-1) == tested).T

    labels = np.repeat(np.arange(languages)[:, None], count, axis=1)
    return right(labels), right(random.permutation(labels.ravel()).reshape(labels.shape))


def fit(
    columns: Float[np.ndarray, "m D"], labels: Int[np.ndarray, " m"], classes: int
) -> tuple[Float[np.ndarray, "J D"], Float[np.ndarray, " J"]]:
    """Weights and biases that minimize mean -log p(label) + ‖W‖²/2m, the objective of scikit-learn with C = 1."""
    count, width, one_hot = *columns.shape, np.eye(classes)[labels]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[: classes * width].reshape(classes, width), flat[classes * width :]
        logprobs = log_softmax(columns @ weights.T + bias, axis=1)
        residual = (np.exp(logprobs) - one_hot) / count
        gradient = np.concatenate([(residual.T @ columns + weights / count).ravel(), residual.sum(axis=0)])
        return float(np.sum(weights**2) / 2 - np.sum(logprobs * one_hot)) / count, gradient

    start = np.zeros(classes * (width + 1))
    options = {"maxiter": ITERATIONS, "gtol": TOLERANCE, "ftol": 0.0}
    flat = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return flat[: classes * width].reshape(classes, width), flat[classes * width :]
