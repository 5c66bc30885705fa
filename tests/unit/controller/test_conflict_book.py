"""Who holds our fields since when: kept as long as it lasts, over a restart, and no longer."""

from paceline.api import Condition, InferenceServiceStatus
from paceline.controller.conflict_book import Attempt, ConflictBook
from paceline.controller.errors import ForeignFields
from paceline.controller.work_queue import ServiceKey

KEY = ServiceKey("ns", "chat")
CHILD = ("Deployment", "chat-router")
FOREIGN = (ForeignFields("gitops", (".spec.replicas",)),)
ATTEMPT = Attempt(uid="u", resource_version="7", digest="d")


def _told(status: str) -> InferenceServiceStatus:
    condition = Condition(
        type="ForeignWriter",
        status="True" if status == "True" else "False",
        last_transition_time="2026-01-01T00:00:00Z",
        reason="FieldsHeld",
    )
    return InferenceServiceStatus(conditions=(condition,))


def test_the_first_sight_stays_the_first_sight() -> None:
    book = ConflictBook()
    assert book.record(KEY, CHILD, foreign=FOREIGN, attempt=ATTEMPT, now_s=100, status=None)
    later = Attempt(uid="u", resource_version="8", digest="d")
    assert not book.record(KEY, CHILD, foreign=FOREIGN, attempt=later, now_s=200, status=None)
    assert [one.first_seen_s for one in book.of(KEY)] == [100]


def test_a_restarted_operator_knows_the_first_sight_from_the_status() -> None:
    book = ConflictBook()
    book.record(KEY, CHILD, foreign=FOREIGN, attempt=ATTEMPT, now_s=2e9, status=_told("True"))
    assert [one.first_seen_s for one in book.of(KEY)] == [1767225600]


def test_a_condition_that_is_over_says_nothing_about_a_new_conflict() -> None:
    book = ConflictBook()
    book.record(KEY, CHILD, foreign=FOREIGN, attempt=ATTEMPT, now_s=2e9, status=_told("False"))
    assert [one.first_seen_s for one in book.of(KEY)] == [2e9]


def test_the_same_apply_to_the_same_child_is_not_sent_again() -> None:
    book = ConflictBook()
    book.record(KEY, CHILD, foreign=FOREIGN, attempt=ATTEMPT, now_s=100, status=None)
    assert book.is_refused(KEY, CHILD, ATTEMPT)
    assert not book.is_refused(KEY, CHILD, Attempt(uid="u", resource_version="8", digest="d"))
    assert not book.is_refused(KEY, CHILD, Attempt(uid="u", resource_version="7", digest="other"))


def test_children_that_are_gone_hold_nothing() -> None:
    book = ConflictBook()
    book.record(KEY, CHILD, foreign=FOREIGN, attempt=ATTEMPT, now_s=100, status=None)
    book.keep_only(KEY, {})
    assert book.of(KEY) == ()
