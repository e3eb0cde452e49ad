"""What the command line offers: files, tasks, and the models that come with the package."""

from pathlib import Path

MODELS = Path(__file__).parent / "models"  # run folders without their history
