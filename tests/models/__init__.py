"""Whole models from Gluon, GluonCV, GluonNLP and InsightFace, with seeded weights.

``CATALOGUE`` lists them; `measure` compares one with MXNet. ``docs/make_models.py`` makes
docs/models.md from them, and tests/test_models.py keeps that page true.
"""
