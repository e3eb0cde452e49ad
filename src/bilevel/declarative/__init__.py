"""Declarative nodes: solutions of smooth problems with smooth constraints, written as functions."""

from .node import DeclarativeNode

__all__ = ["DeclarativeNode"]
