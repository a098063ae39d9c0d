"""Where things lie: the repository, and the real trips beside it."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY.resolve().parent / "shared" / "data"
REAL_TRIPS = DATA / "nyc_kaggle_format"
