"""Saliency that is right, and the measures and statistics to audit a vision model with. Torch in, torch out.

    from camcore import cam, record

    recording = record(subject, images)
    saliency = cam.gradcam(recording)

No files are written, nothing is plotted, nothing is fetched (`camcore.explain`, imported by itself, draws).
"""

from camcore import cam
from camcore.errors import BadInput
from camcore.grid import Grid
from camcore.grounding import BoxFinder
from camcore.images import Batch, Dataset, Geometry
from camcore.imagetext import CaptionScorer, TwoTowers, as_classifier, as_scorer, scorer_as_classifier
from camcore.layers import with_target_layer
from camcore.record import Recording, ZeroGradient, record, record_layers
from camcore.similarity import captions_as_classes
from camcore.subject import Classifier, Grounder, ImageText, Normalise, Subject

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
