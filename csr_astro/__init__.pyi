from . import (
    batch as batch,
)
from . import (
    evaluation as evaluation,
)
from . import (
    fitting as fitting,
)
from . import (
    flags as flags,
)
from . import (
    images as images,
)
from . import (
    instruments as instruments,
)
from . import (
    kriging as kriging,
)
from . import (
    masking as masking,
)
from . import (
    nn as nn,
)
from . import (
    photometry as photometry,
)
from . import (
    simulation as simulation,
)
from . import (
    sources as sources,
)
from . import (
    training as training,
)
from . import (
    typing as typing,
)
from . import (
    uncertainty as uncertainty,
)
from .background import NeuralBackground as NeuralBackground
from .estimator import NeuralBackgroundEstimator as NeuralBackgroundEstimator
from .instruments import get_instrument as get_instrument
from .instruments import list_instruments as list_instruments
from .nn.weights import list_weights as list_weights
from .nn.weights import load_model as load_model
from .photometry.apertures import InpaintedAperturePhotometry as InpaintedAperturePhotometry
from .photometry.finder import NeuralSourceFinder as NeuralSourceFinder
from .photometry.psf import InpaintedPSFPhotometry as InpaintedPSFPhotometry

__bibtex__: str
__citation__: str
__version__: str
