"""Measuring whole models."""
