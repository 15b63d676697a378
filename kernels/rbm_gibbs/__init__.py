"""Block-Gibbs sampling of a restricted Boltzmann machine: k sweeps for a batch of chains in one call.

`gibbs` samples binary visible units, `gaussian_gibbs` real-valued ones. The products run in float32, or on tensor cores
with weights that `prepare_weights` has split (`prepared.py` has the error of each precision).
"""

from ..machines.unit_draws import draw_normals, draw_uniforms
from .binary import PLANS, gibbs
from .checks import GibbsResult
from .gaussian import gaussian_gibbs
from .prepared import PRECISIONS, WEIGHT_DTYPES, PreparedWeights, prepare_weights
from .reference import probabilities
from .states import pack_states, unpack_states

__all__ = [
    "PLANS",
    "PRECISIONS",
    "WEIGHT_DTYPES",
    "GibbsResult",
    "PreparedWeights",
    "draw_normals",
    "draw_uniforms",
    "gaussian_gibbs",
    "gibbs",
    "pack_states",
    "prepare_weights",
    "probabilities",
    "unpack_states",
]
