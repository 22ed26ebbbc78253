"""Tests of the supervised tasks."""
