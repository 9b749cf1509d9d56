"""The gan at its real width."""

from tests.test_models import lowers_the_loss


def test_a_few_steps_lower_the_loss():
    lowers_the_loss("gan")
