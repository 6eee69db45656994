"""Tests of estimators/projections."""
