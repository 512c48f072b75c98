# What camcore gives, and where it lies: `__init__.py` reads it from here.
from . import cam
from .errors import BadInput
from .grid import Grid
from .grounding import BoxFinder
from .images import Batch, Dataset, Geometry
from .imagetext import CaptionScorer, TwoTowers
from .layers import with_target_layer
from .prompted import as_classifier, as_scorer, scorer_as_classifier
from .recording import Recording, ZeroGradient, record, record_layers
from .similarity import captions_as_classes
from .subject import Classifier, Grounder, ImageText, Normalise, Subject

__all__ = [
    "BadInput",
    "Batch",
    "BoxFinder",
    "CaptionScorer",
    "Classifier",
    "Dataset",
    "Geometry",
    "Grid",
    "Grounder",
    "ImageText",
    "Normalise",
    "Recording",
    "Subject",
    "TwoTowers",
    "ZeroGradient",
    "as_classifier",
    "as_scorer",
    "cam",
    "captions_as_classes",
    "record",
    "record_layers",
    "scorer_as_classifier",
    "with_target_layer",
]
