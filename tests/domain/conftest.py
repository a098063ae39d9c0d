"""What tests of decisions start from."""

import pytest

from tests.approvals import Office


@pytest.fixture
def office(ledger_url: str) -> Office:
    """Approvals in which version 1 is production."""
    return Office.open(ledger_url).with_first_model()
