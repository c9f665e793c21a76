"""Mask2Former, GenEval's object detector."""
