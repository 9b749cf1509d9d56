"""The properties of the quick tier, over many more examples."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests import test_old_photos, test_promises
from tests.test_promises import ANY_PHOTO, ANY_SCALE, ANY_STYLE, ANY_VIEWS, damaged, ensembles

__all__ = ["ensembles"]  # a fixture


@settings(max_examples=200, deadline=None)
@given(*ANY_PHOTO)
def test_damage_of_any_size(height, width, seed):
    test_promises.draws_a_hole(height, width, seed)


@settings(max_examples=100, deadline=None)
@given(damaged(), st.sampled_from([1, 2]), ANY_VIEWS, ANY_SCALE, ANY_STYLE)
def test_restorer_keeps_the_luma(ensembles, image, members, tta, scale, style):
    test_promises.keeps_the_luma(ensembles[scale][:members], *image, tta, style)


@settings(max_examples=50, deadline=None)
@given(damaged(), ANY_VIEWS, ANY_SCALE)
def test_estimates_are_finite(ensembles, image, tta, scale):
    test_promises.estimates_in_range(ensembles[scale], *image, tta)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 900), st.integers(1, 900))
def test_pieces_cover_the_hole_once(seed, height, width):
    test_old_photos.covers_the_hole_once(seed, height, width)


def test_detector_on_photos_it_never_saw():
    test_old_photos.finds_most_damage(seeds=4)
