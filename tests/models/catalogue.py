"""All models that docs/models.md is about."""

from __future__ import annotations

from . import gluon, gluon_cv, gluon_nlp, insight_face
from .model import Model

CATALOGUE: dict[str, Model] = {
    model.name: model
    for models in (gluon.MODELS, gluon_cv.MODELS, gluon_nlp.MODELS, insight_face.MODELS)
    for model in models
}
