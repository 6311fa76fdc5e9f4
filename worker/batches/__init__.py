"""Batches: their input files are validated, their lines stored as prompts, and their output files written."""
