"""The precision of a median of times, whose neighbours are alike because clocks and temperatures drift."""

import math
from collections.abc import Sequence

PRECISE = 0.005
PRECISE_ON_CPU = 0.01
"""Sampling ends when the noise of the median is below this: on a GPU, and on a CPU, whose times vary more."""

FEWEST_LAGS = 2
"""The correlation of neighbours counts in any case; that of samples further apart counts until one is insignificant."""


def correlation_time(samples: Sequence[float]) -> float:
    """How many successive samples say as much as one independent sample: tau >= 1, so that n samples count as n / tau.

    tau = 1 + 2 sum_k rho_k, where rho_k is the correlation of the ranks of samples that are k apart: an outlier cannot
    hide it. The sum ends before the first rho_k below ``2 / sqrt(n)``, which independent samples have by chance. Two
    biases are corrected: the ranks' own mean is subtracted, and the first correlation is too small by about
    ``(1 + 3 rho) / n`` (Kendall 1954). A drift that is slower than the samples last is not seen.
    """
    import numpy as np  # `--help` needs this module, but not numpy

    n = len(samples)
    values = np.asarray(samples, dtype=np.float64)
    ordered = np.sort(values)
    ranks = (ordered.searchsorted(values, "left") + ordered.searchsorted(values, "right") - n) / 2  # 0 in the middle
    if n < 4 or not ranks.any():
        return 1.0
    spectrum = np.fft.rfft(ranks, 2 * n)
    products = np.fft.irfft(spectrum * np.conj(spectrum))[: n // 2]
    rho = products / products[0] * n / (n - np.arange(n // 2))
    small = np.flatnonzero(rho[1:] < 2 / math.sqrt(n))
    end = max(1 + int(small[0]) if len(small) else len(rho), FEWEST_LAGS)
    tau = 1 + 2 * float(rho[1:end].sum())
    if end > FEWEST_LAGS:
        tau /= max(1 - 2 * end / n, 0.25)
    neighbours = float(ranks[1:] @ ranks[:-1]) / float(ranks @ ranks)
    neighbours = min(max(neighbours + (1 + 3 * neighbours) / n, 0.0), 0.99)
    return min(max(tau, (1 + neighbours) / (1 - neighbours)), float(n))


def median_noise(samples: Sequence[float]) -> float:
    """The standard error of the median divided by the median: that of n / `correlation_time` independent samples."""
    return noise_if_independent(samples) * math.sqrt(correlation_time(samples))


def noise_if_independent(samples: Sequence[float]) -> float:
    """The standard error of the median of independent samples divided by the median, from the interquartile range.

    For normal samples the standard deviation is IQR / 1.349, and the standard error of the median is 1.2533 times that
    over sqrt(n). The IQR is robust to the outliers of timings.
    """
    import numpy as np

    low, median, high = np.percentile(samples, (25, 50, 75))
    error = 1.2533 / 1.349 * (high - low) / math.sqrt(len(samples))
    return float(error / median) if median else math.inf if error else 0.0
