"""Tests on a real kind cluster, and the rig that brings one up where no image can be pulled."""
