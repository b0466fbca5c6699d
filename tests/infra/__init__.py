"""Tests of the files below infra/."""
